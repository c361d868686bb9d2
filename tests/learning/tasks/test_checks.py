"""Every image is opened before the training starts."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scripts.learning.sources import Item
from scripts.learning.tasks import Task, check_images, readable_tasks
from scripts.utils.errors import UserError


@pytest.fixture
def items(tmp_path: Path) -> list[Item]:
    """Six images; the third is cut off and the fifth is no image."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)
    np.savez(tmp_path / "set.npz", train_images=pixels)
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    for number, path in enumerate(paths):
        Image.fromarray(pixels[number]).save(path)
    paths[2].write_bytes(paths[2].read_bytes()[:300])
    paths[4].write_text("nothing")
    return [{"image": str(path), "label": 0} for path in paths] + [{"image": f"{tmp_path}/set.npz#train/5", "label": 1}]


def test_readable_images_come_back_as_they_are(items: list[Item]) -> None:
    good = [items[number] for number in (0, 1, 3, 5)]
    assert check_images(good) == good
    assert check_images([]) == []


@pytest.mark.parametrize("workers", [1, 3])
def test_the_first_unreadable_image_is_named_with_their_number(items: list[Item], workers: int) -> None:
    with pytest.raises(
        UserError, match="2 of 6 images cannot be used \\(unreadable 2\\), the first: image .*/2.png cannot be read"
    ):
        check_images(items, workers)


def test_unreadable_images_are_left_out_when_told_so(items: list[Item], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        kept = check_images(items, skip_unreadable=True)
    assert kept == [items[number] for number in (0, 1, 3, 5)]
    assert [any(name in record.getMessage() for record in caplog.records) for name in ("2.png", "4.png", "1.png")] == [
        True,
        True,
        False,
    ]


def test_without_the_check_nothing_is_opened(items: list[Item]) -> None:
    task = Task("set", ("a", "b"), 0, tuple(items), tuple(items))
    assert readable_tasks([task], check=False) == [task]
    with pytest.raises(UserError, match="2 of 6 images cannot be used"):
        readable_tasks([task])
    with pytest.raises(UserError, match="leave tasks#check true"):
        readable_tasks([task], check=False, skip_unreadable=True)
