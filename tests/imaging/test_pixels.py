"""An image becomes the same numbers in training and, without PyTorch, at the edge: to the bit, on any threads."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from scripts.imaging.image_spec import ImageSpec
from scripts.imaging.pixels import channels_first, network_input, resized
from scripts.imaging.transforms import NormalizePixelsd, ResizePixelsd
from scripts.utils.errors import UserError

SPEC = ImageSpec(64, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


def trained(pixels: NDArray[np.uint8], spec: ImageSpec) -> NDArray[np.float32]:
    """Return what the transforms of training make of pixels."""
    image = {"image": torch.from_numpy(channels_first(pixels))}
    seen: torch.Tensor = NormalizePixelsd("image", spec.mean, spec.std)(ResizePixelsd("image", spec.size)(image))[
        "image"
    ]
    return seen.numpy()


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


SHAPES = [(64, 64), (65, 64), (200, 333), (1000, 70), (30, 45), (1, 1), (64, 500), (600, 601), (9, 700)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_picture_becomes_the_tensor_of_training(shape: tuple[int, int], threads: None) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    found = network_input(pixels, SPEC)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, trained(pixels, SPEC))


@pytest.mark.parametrize("shape", [(28, 28, 28), (20, 40, 33), (64, 5, 28)], ids=str)
def test_a_volume_becomes_the_tensor_of_training(shape: tuple[int, ...], threads: None) -> None:
    spec = ImageSpec(28, [0.5], [0.25], dimensions=3)
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 1), dtype=np.uint8)
    np.testing.assert_array_equal(network_input(pixels, spec), trained(pixels, spec))


def test_interpolation_is_that_of_pytorch() -> None:
    image = np.random.default_rng(0).integers(0, 256, (3, 20, 30), dtype=np.uint8).astype(np.float32)
    expected = torch.nn.functional.interpolate(torch.from_numpy(image)[None], (40, 45), mode="bilinear")[0]
    np.testing.assert_allclose(resized(image, (40, 45)), expected.numpy(), atol=1e-4)


def real_pictures(data: Path) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    for archive in sorted(data.glob("*.zip")):
        with zipfile.ZipFile(archive) as file:
            names = [name for name in file.namelist() if name.lower().endswith((".jpg", ".jpeg", ".png"))]
            for name in names[:: max(1, len(names) // 12)]:
                yield f"{archive.name}: {name}", np.asarray(Image.open(BytesIO(file.read(name))).convert("RGB"))


@pytest.mark.parametrize("size", [64, 128, 224])
def test_real_pictures_become_the_tensors_of_training(size: int, test_data: Path) -> None:
    spec = ImageSpec(size, SPEC.mean, SPEC.std)
    pictures = dict(real_pictures(test_data))
    assert len(pictures) > 20
    assert [
        name for name, pixels in pictures.items() if (network_input(pixels, spec) != trained(pixels, spec)).any()
    ] == []


@pytest.mark.parametrize("given", [{"mean": [0.5, 0.5]}, {"std": [1.0], "mean": [0.0] * 3, "dimensions": 3}], ids=str)
def test_numbers_of_another_number_of_channels_are_refused(given: dict[str, object]) -> None:
    with pytest.raises(UserError, match=r"'mean' has \d numbers, not \d \(key 'image#mean'\)"):
        ImageSpec(**{"size": 8, "mean": [0.5], "std": [1.0], **given})  # type: ignore[arg-type]
