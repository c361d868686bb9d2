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

from scripts.imaging.transforms import LoadPixelsd, NormalizePixelsd, RGBReader
from scripts.learning.sources import Item
from scripts.learning.tasks import ImageCache, ImageDataset
from scripts.learning.tasks.dataset import _OVERHEAD
from scripts.utils.errors import UserError, describe

SIZE = 8
BYTES = 3 * SIZE * SIZE * 4 + _OVERHEAD


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


def _unresized(*more: Any) -> Compose:
    return Compose([LoadPixelsd("image", RGBReader()), *more])


def test_an_image_that_was_not_resized_is_kept_as_bytes(items: list[Item]) -> None:
    cache = ImageCache()
    dataset, plain = ImageDataset(items, _unresized(), cache), ImageDataset(items, _unresized())
    for index in (0, 1, 0, 1):
        assert dataset[index]["image"].dtype == torch.float32
        assert torch.equal(dataset[index]["image"], plain[index]["image"])
    assert cache.used_bytes == 2 * (3 * 10 * 12 + _OVERHEAD)


@pytest.mark.parametrize("change", [lambda x: x + 0.5, lambda x: -x, lambda x: 2 * x, lambda x: x / 0])
def test_what_bytes_cannot_hold_is_kept_whole(items: list[Item], change: Any) -> None:
    cache = ImageCache()
    dataset = ImageDataset(items, _unresized(Lambdad("image", change)), cache)
    first = dataset[0]["image"]
    assert torch.equal(first.nan_to_num(7), dataset[0]["image"].nan_to_num(7))
    assert cache.used_bytes == 3 * 10 * 12 * 4 + _OVERHEAD


def test_the_normalisation_is_done_anew_each_time(items: list[Item]) -> None:
    cache = ImageCache()
    normal = NormalizePixelsd("image", [0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    cached = ImageDataset(items, _unresized(normal), cache)
    other = ImageDataset(items, _unresized(NormalizePixelsd("image", [0.0] * 3, [1.0] * 3)), cache)
    plain = ImageDataset(items, _unresized(normal))
    for _ in range(2):
        assert torch.equal(cached[0]["image"], plain[0]["image"])
        assert not torch.equal(other[0]["image"], plain[0]["image"])
    assert len(cache) == 1


def test_a_part_of_an_image_holds_no_more_than_itself(items: list[Item]) -> None:
    cache = ImageCache()
    ImageDataset(items, _unresized(Lambdad("image", lambda image: image[:, :2, :2] + 0.5)), cache)[0]
    ((kept, _),) = cache._images.values()
    assert kept.untyped_storage().nbytes() == 3 * 2 * 2 * 4


def test_workers_read_what_is_kept_and_keep_nothing_themselves(items: list[Item]) -> None:
    cache = ImageCache()
    dataset = ImageDataset(items, _unresized(), cache)
    dataset[0], dataset[1]
    for item in items[:2]:
        Path(item["image"]).unlink()
    loader = DataLoader(dataset, batch_size=2, num_workers=1)
    assert len(torch.cat([batch["label"] for batch in loader])) == 4
    for item in items[2:]:
        Path(item["image"]).unlink()
    with pytest.raises(UserError, match="2.png is missing"):
        list(loader)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_image_is_named_in_one_line(items: list[Item], workers: int) -> None:
    path = Path(items[2]["image"])
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(UserError) as error:
        list(DataLoader(ImageDataset(items, _random(), ImageCache()), batch_size=2, num_workers=workers))
    assert describe(error.value).startswith(f"Error: image {path} cannot be read (")
    assert describe(error.value).endswith("): replace it, or remove it")


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
