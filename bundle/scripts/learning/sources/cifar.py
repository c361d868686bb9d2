"""CIFAR-10 and CIFAR-100, read by torchvision and kept as one npz file in the MedMNIST layout."""

from __future__ import annotations

import os

import numpy as np
from torchvision.datasets import CIFAR10, CIFAR100

from scripts.learning.sources.arrays import read_group
from scripts.learning.sources.download import not_had
from scripts.learning.sources.source import Group
from scripts.utils.errors import UserError
from scripts.utils.files import write_atomically

SOURCES: dict[int, type[CIFAR10]] = {10: CIFAR10, 100: CIFAR100}


class Cifar:
    """Reads ``cifar-10-batches-py/`` or ``cifar-100-python/``, or the archive of it, once, and then ``cifar<n>.npz``.

    Args:
        root: the folder of the archive, and of the npz file that is written.
        classes: 10 or 100.
        download: fetch the archive where it is missing; torchvision compares its checksum.
    """

    def __init__(self, root: str, classes: int, download: bool = False) -> None:
        if classes not in SOURCES:
            raise UserError(f"there is no CIFAR of {classes} classes: choose 10 or 100")
        self.root = os.path.abspath(root)
        self.source = SOURCES[classes]
        self.name = f"cifar{classes}"
        self.download = download

    def groups(self) -> list[Group]:
        """Return the one group."""
        file = os.path.join(self.root, f"{self.name}.npz")
        if not os.path.isfile(file):
            self._convert(file)
        return [read_group(file, self.name)]

    def _convert(self, file: str) -> None:
        archive = os.path.join(self.root, self.source.filename)
        have = self.download or os.path.isfile(archive)
        try:
            train, test = (self.source(self.root, train=split, download=have) for split in (True, False))
        except (OSError, RuntimeError) as error:
            raise not_had(self.source.url, archive, self.source.tgz_md5, error) from error
        arrays = {
            "train_images": train.data,
            "train_labels": np.array(train.targets, np.int64),
            "test_images": test.data,
            "test_labels": np.array(test.targets, np.int64),
            "classes": np.array(train.classes),
        }
        write_atomically(file, lambda stream: np.savez(stream, **arrays))
