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
    Transform,
)
from PIL import Image

from scripts.transforms import LoadPixelsd, NormalizePixelsd, ReferenceReader, RGBReader, VolumeReader

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


def both_ways(reader: ReferenceReader, channels: int, *between: Transform) -> tuple[Compose, Compose]:
    mean, std = MEAN[:channels], STD[:channels]
    load = [LoadImaged("image", reader=reader, image_only=True), EnsureChannelFirstd("image", channel_dim=-1)]
    scale = [ScaleIntensityRanged("image", 0, 255, 0, 1), NormalizeIntensityd("image", mean, std, channel_wise=True)]
    short = [LoadPixelsd("image", reader), *between, NormalizePixelsd("image", mean, std)]
    return Compose([*load, *between, *scale]), Compose(short)


@pytest.mark.parametrize("size", [(8, 32), (4, 4), (40, 40), (5, 33)])
def test_an_image_is_that_of_monais_transforms(reference: str, size: tuple[int, int]) -> None:
    long, short = both_ways(RGBReader(), 3, Resized("image", size, mode="bilinear", anti_aliasing=True))
    expected, found = long({"image": reference})["image"], short({"image": reference})["image"]
    assert found.dtype == torch.float32
    assert torch.equal(torch.as_tensor(found), torch.as_tensor(expected))


@pytest.mark.parametrize("size", [(4, 8, 8), (3, 9, 5)])
def test_a_volume_is_that_of_monais_transforms(size: tuple[int, int, int], tmp_path: Path) -> None:
    np.save(tmp_path / "volume.npy", np.arange(256, dtype=np.uint8).reshape(4, 8, 8))
    long, short = both_ways(VolumeReader(), 1, Resized("image", size, mode="trilinear", anti_aliasing=True))
    expected, found = (way({"image": f"{tmp_path}/volume.npy"})["image"] for way in (long, short))
    assert found.shape == (1, *size)
    assert found.dtype == torch.float32
    assert torch.equal(torch.as_tensor(found), torch.as_tensor(expected))


def test_an_image_is_loaded_rows_first_with_values_up_to_255(reference: str) -> None:
    image = LoadPixelsd("image", RGBReader())({"image": reference, "label": 3})
    assert image["label"] == 3
    assert image["image"].dtype == torch.float32
    assert image["image"].is_contiguous()
    assert np.array_equal(image["image"].numpy(), PIXELS.transpose(2, 0, 1))
