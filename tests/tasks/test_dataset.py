"""A cached image equals an uncached one; the cache keeps its bound and never mixes up preprocessings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import DataLoader, set_track_meta
from monai.data.meta_obj import get_track_meta
from monai.transforms import Compose, EnsureChannelFirstd, Lambdad, LoadImaged, RandFlipd, RandGaussianNoised, Resized
from PIL import Image

from scripts.tasks import ImageCache, ImageDataset, Item
from scripts.transforms import RGBReader

SIZE = 8
BYTES = 3 * SIZE * SIZE * 4


@pytest.fixture(params=[True, False], ids=["meta", "plain"])
def tracked(request: pytest.FixtureRequest) -> Iterator[bool]:
    before = get_track_meta()
    set_track_meta(request.param)
    yield request.param
    set_track_meta(before)


@pytest.fixture
def items(tmp_path: Path) -> list[Item]:
    rng = np.random.default_rng(0)
    for number in range(4):
        Image.fromarray(rng.integers(0, 256, (10, 12, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
    return [{"image": str(tmp_path / f"{number}.png"), "label": number % 2, "patient": "p"} for number in range(4)]


def _transform(*random: Any, size: int = SIZE) -> Compose:
    return Compose(
        [
            LoadImaged(keys="image", reader=RGBReader, image_only=True),
            EnsureChannelFirstd(keys="image", channel_dim=-1),
            Resized(keys="image", spatial_size=(size, size), mode="bilinear", anti_aliasing=True),
            *random,
        ]
    )


def _random() -> Compose:
    return _transform(RandFlipd("image", prob=0.5, spatial_axis=1), RandGaussianNoised("image", prob=0.5))


def test_cached_images_equal_uncached_ones(items: list[Item], tracked: bool) -> None:
    plain, cached = ImageDataset(items, _random()), ImageDataset(items, _random(), ImageCache())
    for dataset in (plain, cached):
        dataset.transform.set_random_state(seed=7)
    for _ in range(3):
        for index in range(len(items)):
            left, right = plain[index], cached[index]
            assert type(right["image"]) is torch.Tensor
            assert right["image"].shape == (3, SIZE, SIZE)
            assert right["image"].dtype == torch.float32
            assert torch.equal(left["image"], right["image"])
            assert (right["label"], right["index"]) == (index % 2, index)
            assert right.keys() == {"image", "label", "index"}


def test_a_cached_image_is_decoded_once(items: list[Item]) -> None:
    dataset = ImageDataset(items, _random(), ImageCache())
    first = [dataset[index] for index in range(4)]
    for item in items:
        Path(item["image"]).unlink()
    assert [dataset[index]["label"] for index in range(4)] == [item["label"] for item in first]


def test_what_is_given_out_may_be_changed(items: list[Item]) -> None:
    dataset = ImageDataset(items, _transform(), ImageCache())
    before = dataset[0]["image"].clone()
    dataset[0]["image"].zero_()
    assert torch.equal(dataset[0]["image"], before)


@pytest.mark.parametrize("room", [0, 1, BYTES - 1, 2 * BYTES, 2 * BYTES + 1, 9 * BYTES])
def test_the_cache_never_exceeds_its_bound(items: list[Item], room: int) -> None:
    cache = ImageCache(room)
    dataset = ImageDataset(items, _transform(), cache)
    for index in (0, 1, 2, 3, 0, 1, 2, 3):
        dataset[index]
        assert cache.used_bytes == len(cache) * BYTES <= room
    assert len(cache) == min(4, room // BYTES)


def test_training_and_test_share_what_is_preprocessed_alike(items: list[Item]) -> None:
    cache = ImageCache()
    training, test = ImageDataset(items, _random(), cache), ImageDataset(items, _transform(), cache)
    [training[index] for index in range(4)]
    [test[index] for index in range(4)]
    assert len(cache) == 4


def test_other_preprocessings_share_nothing(items: list[Item]) -> None:
    cache = ImageCache()
    sizes = [ImageDataset(items, _transform(size=size), cache)[0]["image"].shape[1] for size in (8, 9, 8)]
    assert sizes == [8, 9, 8]
    doubled = _transform(Lambdad("image", lambda image: image * 2))
    plain = ImageDataset(items, _transform(), cache)[0]["image"]
    assert torch.equal(ImageDataset(items, doubled, cache)[0]["image"], plain * 2)
    assert len(cache) == 3


def test_new_data_takes_the_place_of_the_old(items: list[Item]) -> None:
    dataset = ImageDataset(items, _transform(), ImageCache())
    third = dataset[2]["image"]
    dataset.set_data(items[2:])
    assert len(dataset) == 2
    assert torch.equal(dataset[0]["image"], third)
    assert dataset[-1]["index"] == 1
    with pytest.raises(IndexError):
        dataset[2]


def test_it_feeds_a_loader_with_workers(items: list[Item]) -> None:
    batches = list(DataLoader(ImageDataset(items, _random(), ImageCache()), batch_size=3, num_workers=1))
    assert [tuple(batch["image"].shape) for batch in batches] == [(3, 3, SIZE, SIZE), (1, 3, SIZE, SIZE)]
    assert torch.equal(torch.cat([batch["index"] for batch in batches]), torch.arange(4))
