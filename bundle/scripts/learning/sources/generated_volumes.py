"""An embedded data set of volumes: noisy solids of six shapes, in an npz file of MedMNIST's 3-D layout.

A class is a shape; where it lies, how it is turned, its size, its brightness and the background say nothing about it.
Every volume is drawn from its own random numbers, so that it does not depend on how many there are.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from scripts.learning.sources.arrays import read_group
from scripts.learning.sources.source import Group
from scripts.utils.errors import UserError
from scripts.utils.files import write_atomically

SIDE = 28
"""Depth, height and width of a volume, in voxels: those of MedMNIST's 3-D sets."""

_Inside = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
SHAPES: dict[str, _Inside] = {
    "ball": lambda x, y, z: x**2 + y**2 + z**2 < 0.75**2,
    "rod": lambda x, y, z: (x**2 + y**2 < 0.25**2) & (abs(z) < 1),
    "cube": lambda x, y, z: np.maximum(np.maximum(abs(x), abs(y)), abs(z)) < 0.6,
    "ring": lambda x, y, z: (np.sqrt(x**2 + y**2) - 0.75) ** 2 + z**2 < 0.25**2,
    "shell": lambda x, y, z: abs(np.sqrt(x**2 + y**2 + z**2) - 0.7) < 0.15,
    "plate": lambda x, y, z: (x**2 + y**2 < 0.9**2) & (abs(z) < 0.2),
}
"""The classes, in label order: which points of a solid's own coordinates, about -1..1, lie inside it."""

_DRAWING = 1  # to be raised when a change of the drawing makes other volumes from the same seed
_SPLITS = ("train", "test")


def draw_volume(shape: str, seed: int, split: int, number: int) -> np.ndarray:
    """Draw one volume.

    Args:
        shape: a key of `SHAPES`.
        seed: of the data set.
        split: 0 for training, 1 for test.
        number: of the volume in its class.

    Returns:
        uint8 ``[SIDE, SIDE, SIDE]``.
    """
    random = np.random.default_rng([_DRAWING, seed, list(SHAPES).index(shape), split, number])
    turn, _ = np.linalg.qr(random.normal(size=(3, 3)))
    centre = random.uniform(-0.2, 0.2, (3, 1))
    points = np.stack(np.meshgrid(*[np.linspace(-1.2, 1.2, SIDE)] * 3, indexing="ij")).reshape(3, -1)
    inside = SHAPES[shape](*(turn @ (points - centre) / random.uniform(0.8, 1.1)))
    slope = random.uniform(-15, 15, 3) @ points
    light = random.uniform(40, 80) + slope + random.uniform(60, 110) * inside + random.normal(0, 5, inside.size)
    return light.clip(0, 255).astype(np.uint8).reshape(SIDE, SIDE, SIDE)


class GeneratedVolumes:
    """Draws the data set once, to a file named after what is in it, and offers it as one group of six classes.

    Args:
        root: folder to hold the file; made where it is missing.
        seed: of all drawings.
        train_per_class: training volumes a class.
        test_per_class: test volumes a class.
    """

    def __init__(self, root: str, seed: int = 0, train_per_class: int = 60, test_per_class: int = 20) -> None:
        if min(train_per_class, test_per_class) < 1:
            raise UserError("train_per_class and test_per_class must be at least 1")
        self.root = os.path.abspath(root)
        self.seed = seed
        self.counts = (train_per_class, test_per_class)

    def file(self) -> str:
        """Return the npz file, ``{train,test}_{images,labels}``, written where it is missing.

        Raises:
            UserError: where it cannot be written.
        """
        train, test = self.counts
        path = Path(self.root, f"volumes{_DRAWING}_s{self.seed}_{train}_{test}.npz")
        if not path.is_file():
            own = path.with_suffix(f".{os.getpid()}")  # the processes of a distributed run draw at once
            write_atomically(own, lambda file: np.savez_compressed(file, allow_pickle=False, **self._arrays()))
            os.replace(own, path)
        return str(path)

    def groups(self) -> list[Group]:
        """Return the one group."""
        return [read_group(self.file(), "volumes", tuple(SHAPES))]

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays: dict[str, np.ndarray] = {}
        for split, (name, count) in enumerate(zip(_SPLITS, self.counts, strict=True)):
            drawn = [draw_volume(shape, self.seed, split, number) for shape in SHAPES for number in range(count)]
            arrays[f"{name}_images"] = np.stack(drawn)
            arrays[f"{name}_labels"] = np.repeat(np.arange(len(SHAPES), dtype=np.uint8), count)[:, None]
        return arrays
