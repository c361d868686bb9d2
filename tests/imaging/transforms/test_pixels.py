"""The short way from a reference to a tensor ends, to the last bit, where MONAI's transforms do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    LoadImaged,
    NormalizeIntensityd,
    Resized,
    ScaleIntensityRanged,
)
from PIL import Image

from scripts.imaging.transforms import (
    LoadPixelsd,
    NormalizePixelsd,
    ReferenceReader,
    ResizePixelsd,
    RGBReader,
    VolumeReader,
)

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
# every value of every channel, in an image that is wider than high
PIXELS = np.stack([np.arange(256, dtype=np.uint8).reshape(8, 32)] * 3, axis=2)


@pytest.fixture(params=["png", "npz"])
def reference(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "npz":
        np.savez(tmp_path / "set.npz", train_images=PIXELS[None])
        return f"{tmp_path}/set.npz#train/0"
    Image.fromarray(PIXELS).save(tmp_path / "image.png")
    return f"{tmp_path}/image.png"


def both_ways(reader: ReferenceReader, size: tuple[int, ...]) -> tuple[Compose, Compose]:
    mode, channels = ("bilinear", 3) if len(size) == 2 else ("trilinear", 1)
    mean, std = MEAN[:channels], STD[:channels]
    resize = Resized("image", size, mode=mode, anti_aliasing=True)
    load = [LoadImaged("image", reader=reader, image_only=True), EnsureChannelFirstd("image", channel_dim=-1)]
    scale = [ScaleIntensityRanged("image", 0, 255, 0, 1), NormalizeIntensityd("image", mean, std, channel_wise=True)]
    short = [LoadPixelsd("image", reader), ResizePixelsd("image", size), NormalizePixelsd("image", mean, std)]
    return Compose([*load, resize, *scale]), Compose(short)


@pytest.mark.parametrize("size", [(8, 32), (4, 4), (40, 40), (5, 33), (9, 2), (1, 1)])
def test_an_image_is_that_of_monais_transforms(reference: str, size: tuple[int, int]) -> None:
    long, short = both_ways(RGBReader(), size)
    expected, found = long({"image": reference})["image"], short({"image": reference})["image"]
    assert found.dtype == torch.float32
    assert torch.equal(torch.as_tensor(found), torch.as_tensor(expected))


@pytest.mark.parametrize("size", [(4, 8, 8), (3, 9, 5), (2, 2, 2)])
def test_a_volume_is_that_of_monais_transforms(size: tuple[int, int, int], tmp_path: Path) -> None:
    np.save(tmp_path / "volume.npy", np.arange(256, dtype=np.uint8).reshape(4, 8, 8))
    long, short = both_ways(VolumeReader(), size)
    expected, found = (way({"image": f"{tmp_path}/volume.npy"})["image"] for way in (long, short))
    assert found.shape == (1, *size)
    assert found.dtype == torch.float32
    assert torch.allclose(torch.as_tensor(found), torch.as_tensor(expected), rtol=0, atol=1e-5)  # sums in another order


def test_an_image_is_loaded_rows_first_with_values_up_to_255(reference: str) -> None:
    image = LoadPixelsd("image", RGBReader())({"image": reference, "label": 3})
    assert image["label"] == 3
    assert image["image"].dtype == torch.float32
    assert image["image"].is_contiguous()
    assert np.array_equal(image["image"].numpy(), PIXELS.transpose(2, 0, 1))


@pytest.mark.parametrize(("stored", "loaded"), [(180, 128), (600, 224), (28, 96), (224, 33)])
def test_a_real_size_is_resized_as_monai_does(stored: int, loaded: int) -> None:
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, stored, stored + 3))).float()
    size = (loaded, loaded)
    expected = Resized("image", size, mode="bilinear", anti_aliasing=True)({"image": pixels.clone()})["image"]
    found = ResizePixelsd("image", size)({"image": pixels})["image"]
    # the same sums; how a convolution orders them is the processor's affair
    assert torch.allclose(found, torch.as_tensor(expected), rtol=0, atol=1e-3)
