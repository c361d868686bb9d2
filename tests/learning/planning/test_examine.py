"""Every image is decoded once, and its pixels are told apart by a hash."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from scripts.imaging.transforms import VolumeReader
from scripts.learning.planning.examine import TEST, TRAINING, VALIDATION, Examined, examine, pixel_hash
from scripts.learning.tasks import Task


def one_task(images: list[str], test: list[str]) -> Task:
    return Task("set", ("a",), 0, *(tuple({"image": i, "label": 0} for i in listed) for listed in (images, test)))


@pytest.mark.parametrize("shape", [(3, 5, 7), (3, 5, 7, 3)], ids=["grey", "colour"])
def test_the_same_picture_as_png_and_in_an_npz_has_one_hash(shape: tuple[int, ...], tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.savez(tmp_path / "set.npz", train_images=pixels)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    files = [str(tmp_path / f"{number}.png") for number in range(3)]
    entries = [f"{tmp_path}/set.npz#train/{number}" for number in range(3)]
    found = examine([one_task(files, entries)])
    hashes = [image.digest for image in found]
    assert hashes[:3] == hashes[3:]
    assert len(set(hashes)) == 3


def test_the_hash_tells_pixels_and_shapes_apart() -> None:
    pixels = np.zeros((2, 6, 3), np.uint8)
    other = pixels.copy()
    other[1, 5, 2] = 1
    hashes = {pixel_hash(array) for array in (pixels, other, pixels.reshape(3, 4, 3), pixels.reshape(4, 3, 3))}
    assert len(hashes) == 4
    assert pixel_hash(np.asfortranarray(other)) == pixel_hash(other)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
def test_size_and_mode_are_those_of_the_file(mode: str, tmp_path: Path) -> None:
    path = str(tmp_path / "image.png")
    Image.new("RGB", (7, 5), (9, 99, 199)).convert(mode).save(path)
    (found,) = examine([one_task([path], [])])
    assert (found.size, found.mode) == ((7, 5), mode)


def test_a_volume_has_three_sides_and_only_its_own_reader_takes_it(tmp_path: Path) -> None:
    path = str(tmp_path / "volume.npy")
    np.save(path, np.zeros((5, 6, 7), np.uint8))
    (found,) = examine([one_task([path], [])], VolumeReader().pixels)
    assert (found.size, found.mode, found.fault) == ((5, 6, 7), "L", "")
    (refused,) = examine([one_task([path], [])])
    assert "is a volume: use a backbone for volumes" in refused.fault


@pytest.mark.parametrize("workers", [1, 3])
def test_images_come_in_the_order_of_the_tasks_and_broken_ones_are_named(
    workers: int, tiny: Any, tmp_path: Path
) -> None:
    tasks = tiny.tasks(tmp_path)
    broken = Path(tasks[0].train[1]["image"])
    broken.write_bytes(broken.read_bytes()[:300])
    found = examine(tasks, workers=workers)
    assert [(image.task, image.split, image.item) for image in found] == [
        (number, split, item)
        for number, task in enumerate(tasks)
        for split, items in ((TRAINING, task.train), (VALIDATION, task.validation), (TEST, task.test))
        for item in items
    ]
    assert [image.image for image in found if image.fault] == [str(broken)]
    assert f"image {broken} cannot be read" in found[1].fault
    assert found[1] == Examined(0, TRAINING, tasks[0].train[1], fault=found[1].fault)
