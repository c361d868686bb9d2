"""What every image of a plan is, found by decoding it once and keeping none of its pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from tqdm import tqdm

from scripts.imaging.transforms.reader import read_rgb, stored_mode
from scripts.learning.sources.source import Item
from scripts.learning.tasks.checks import Read
from scripts.learning.tasks.record import image_exists, testable
from scripts.learning.tasks.task import Task
from scripts.utils.errors import UserError

TRAINING, VALIDATION, TEST = PARTS = ("training", "validation", "test")
"""What the parts of a task are called, in the order of :attr:`Task.parts`."""


@dataclass(frozen=True, slots=True)
class Examined:
    """One image.

    Args:
        task: number of its task, from 0.
        split: one of `PARTS`.
        item: the image.
        size: width and height as stored, of a volume depth, height and width.
        mode: as stored; see :func:`scripts.imaging.transforms.reader.stored_mode`.
        digest: see :func:`pixel_hash`.
        fault: why it cannot be read; all before it is then empty.
    """

    task: int
    split: str
    item: Item
    size: tuple[int, ...] = ()
    mode: str = ""
    digest: bytes = b""
    fault: str = ""

    @property
    def image(self) -> str:
        """Where the image is."""
        return str(self.item["image"])


def examine(tasks: Sequence[Task], read: Read = read_rgb, workers: int = 4) -> list[Examined]:
    """Decode every image once; of a task learnt before, those that are left if all its test images are still there.

    Args:
        tasks: the tasks.
        read: decodes one image, as training will.
        workers: threads that decode.

    Returns:
        The images in the order of ``tasks``, of each in that of `PARTS`.
    """
    waiting = [
        Examined(number, split, item)
        for number, task in enumerate(tasks)
        if task.train or testable(task)
        for split, items in zip(PARTS, task.parts, strict=True)
        for item in items
        if task.train or image_exists(item)
    ]
    with ThreadPoolExecutor(workers) as pool:
        done = pool.map(partial(_examine, read), waiting)
        return list(tqdm(done, "reading images", len(waiting), leave=False, delay=1, disable=None, unit="image"))


def pixel_hash(pixels: np.ndarray) -> bytes:
    """Return the same 16 bytes for the same picture, in whatever file it is.

    Args:
        pixels: uint8 ``[H, W, 3]``, of a volume ``[D, H, W, 1]``.
    """
    return hashlib.blake2b(repr(pixels.shape).encode() + pixels.tobytes(), digest_size=16).digest()


def _examine(read: Read, image: Examined) -> Examined:
    try:
        pixels = read(image.image)
    except UserError as error:
        return replace(image, fault=str(error))
    sides = pixels.shape[:-1]
    size = sides[::-1] if len(sides) == 2 else sides
    return replace(image, size=size, mode=stored_mode(image.image), digest=pixel_hash(pixels))
