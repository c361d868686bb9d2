"""Data sets kept as folders of images: PATH16's tree of several sets, and one folder a class."""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence

import numpy as np

from scripts.errors import UserError
from scripts.tasks.task import Group, Item

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
PATHOLOGY_FOLDER = "Pathology16"
PATHOLOGY_LAYOUT = f"<dataset_dir>/{PATHOLOGY_FOLDER}/<set>/<train and test>/<class>/<image>"
FOLDER_LAYOUT = "<dataset_dir>/<train and test>/<class>/<image> or <dataset_dir>/<class>/<image>"


class PathologyFolders:
    """Reads ``<root>/Pathology16/<set>/<train|test>/<class>/<image>``; each set is a group.

    Class names become ``<set>/<class>``, so that "normal" of one set is not "normal" of the next.

    Args:
        root: the folder that holds ``Pathology16``.
        sets: names of the sets in task order; ``None`` takes all, sorted by name.
    """

    def __init__(self, root: str, sets: Sequence[str] | None = None) -> None:
        self.folder = os.path.join(os.path.abspath(root), PATHOLOGY_FOLDER)
        self.sets = sets

    def groups(self) -> list[Group]:
        """Return a group a set, in the order of ``sets``."""
        found = _folders(self.folder, PATHOLOGY_LAYOUT)
        for name in self.sets or []:
            if name not in found:
                raise UserError(f"no set {name!r} in {self.folder}: it has {', '.join(found)}")
        return [self._group(name) for name in self.sets or found]

    def _group(self, name: str) -> Group:
        train, test = _train_and_test(os.path.join(self.folder, name), PATHOLOGY_LAYOUT)
        return Group(
            name,
            tuple(f"{name}/{member}" for member in train),
            {f"{name}/{member}": items for member, items in train.items()},
            {f"{name}/{member}": items for member, items in test.items()},
        )


class ImageFolder:
    """Reads one folder a class: ``<root>/<train|test>/<class>/<image>``, or ``<root>/<class>/<image>``.

    Without ``train`` and ``test`` each class is divided once: the choice depends only on the seed, the class name and
    the sorted file names, so it stays the same when other classes are added later.

    Args:
        root: the folder that holds ``train`` and ``test``, or the class folders.
        test_fraction: share of each class that is kept for testing where there is no ``test`` folder, in (0, 1).
        seed: of that choice.
    """

    def __init__(self, root: str, test_fraction: float = 0.2, seed: int = 0) -> None:
        if not 0 < test_fraction < 1:
            raise UserError(f"test_fraction is {test_fraction}: give a number between 0 and 1, such as 0.2")
        self.root = os.path.abspath(root)
        self.test_fraction = test_fraction
        self.seed = seed

    def groups(self) -> list[Group]:
        """Return the one group."""
        found = _folders(self.root, FOLDER_LAYOUT)
        if "train" in found or "test" in found:
            train, test = _train_and_test(self.root, FOLDER_LAYOUT)
        else:
            train, test = self._divide({name: _images(os.path.join(self.root, name)) for name in found})
        return [Group(os.path.basename(self.root), tuple(train), train, test)]

    def _divide(self, classes: dict[str, list[Item]]) -> tuple[dict[str, list[Item]], dict[str, list[Item]]]:
        train: dict[str, list[Item]] = {}
        test: dict[str, list[Item]] = {}
        for name, items in classes.items():
            if len(items) < 2:
                raise UserError(f"class folder {os.path.join(self.root, name)} has 1 image: training and test need 2")
            count = min(max(1, round(self.test_fraction * len(items))), len(items) - 1)
            order = np.random.default_rng([self.seed, zlib.crc32(name.encode())]).permutation(len(items))
            chosen = set(order[:count].tolist())
            test[name] = [item for number, item in enumerate(items) if number in chosen]
            train[name] = [item for number, item in enumerate(items) if number not in chosen]
        return train, test


def _train_and_test(folder: str, layout: str) -> tuple[dict[str, list[Item]], dict[str, list[Item]]]:
    """Read the two splits of one set, by class name; both must have the same classes."""
    train, test = (_classes(os.path.join(folder, split), layout) for split in ("train", "test"))
    for name in sorted(train.keys() ^ test.keys()):
        missing = os.path.join(folder, "test" if name in train else "train", name)
        raise UserError(f"class folder {missing} is missing: training and test need the same classes ({layout})")
    return train, test


def _classes(folder: str, layout: str) -> dict[str, list[Item]]:
    return {name: _images(os.path.join(folder, name)) for name in _folders(folder, layout)}


def _folders(folder: str, layout: str) -> list[str]:
    """Return the sorted names of the folders in ``folder``; hidden ones are not data."""
    if not os.path.isdir(folder):
        raise UserError(f"data folder {folder} is missing: the layout is {layout}")
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise UserError(f"data folder {folder} has no folders in it: the layout is {layout}")
    return names


def _images(folder: str) -> list[Item]:
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.is_file() and not entry.name.startswith("."))
    items = [{"image": os.path.join(folder, name)} for name in names if name.lower().endswith(IMAGE_SUFFIXES)]
    if not items:
        raise UserError(f"class folder {folder} has no images: add some ({', '.join(IMAGE_SUFFIXES)}) or remove it")
    return items
