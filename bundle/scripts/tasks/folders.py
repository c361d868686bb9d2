"""Data sets kept as folders of images: PATH16's tree of several sets, and one folder a class."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from scripts.errors import UserError
from scripts.tasks.task import Group, Item

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
SPLITS = ("train", "test")
VALIDATION = "val"
PATHOLOGY_FOLDER = "Pathology16"
PATHOLOGY_LAYOUT = f"<dataset_dir>/{PATHOLOGY_FOLDER}/<set>/<train and test>/<class>/<image>"

Images = Callable[[str], list[Item]]


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
        found = class_folders(self.folder, PATHOLOGY_LAYOUT)
        for name in self.sets or []:
            if name not in found:
                raise UserError(f"no set {name!r} in {self.folder}: it has {', '.join(found)}")
        return [self._group(name) for name in self.sets or found]

    def _group(self, name: str) -> Group:
        parts = _split_classes(os.path.join(self.folder, name), PATHOLOGY_LAYOUT, list_images, SPLITS)
        named = [{f"{name}/{member}": items for member, items in part.items()} for part in parts]
        return Group(name, tuple(named[0]), *named)


class ImageFolder:
    """Reads one folder a class: ``<root>/<train or test>/<class>/<image>``, or ``<root>/<class>/<image>``.

    Without the two folders there is no split; :class:`scripts.tasks.HoldOut` makes one.

    Args:
        root: the folder that holds ``train`` and ``test``, or the class folders.
        train: name of the folder of training images.
        test: name of the folder of test images.
        classes: how many class folders there must be; ``None`` takes what is found.
        origin: where the data set can be had, which is said when it is missing.
    """

    def __init__(
        self, root: str, train: str = "train", test: str = "test", classes: int | None = None, origin: str = ""
    ) -> None:
        self.root = os.path.abspath(root)
        self.splits = (train, test)
        self.classes = classes
        self.layout = (
            f"<dataset_dir>/<{train} and {test}>/<class>/<image> or <dataset_dir>/<class>/<image>"
            f"{f'; get it from {origin}' if origin else ''}"
        )

    def groups(self) -> list[Group]:
        """Return the one group."""
        parts = read_classes(self.root, self.layout, list_images, self.splits)
        train = parts[0]
        if self.classes not in (None, len(train)):
            raise UserError(f"{self.root} has {len(train)} class folders, not {self.classes}: {self.layout}")
        return [Group(os.path.basename(self.root), tuple(train), *parts)]


def read_classes(
    root: str, layout: str, images: Images, splits: tuple[str, str] = SPLITS
) -> list[dict[str, list[Item]]]:
    """Read one folder a class, below the two folders of a split or, where neither is there, below ``root``.

    Args:
        root: the folder that holds the split's folders, or the class folders.
        layout: what an error says of how it should be.
        images: finds the images in the folder of a class.
        splits: names of the split's folders.

    Returns:
        Items to learn from, to test with (none without a split) and, where a split has a folder ``val`` of its own, to
        validate with, by class name.

    Raises:
        UserError: where a folder is missing or empty, or the two sides have other classes.
    """
    if set(splits) & set(class_folders(root, layout)):
        return _split_classes(root, layout, images, splits)
    return [_classes(root, layout, images), {}, {}]


def _split_classes(folder: str, layout: str, images: Images, splits: tuple[str, str]) -> list[dict[str, list[Item]]]:
    """Read the splits of one set, by class name; training and test must have the same classes."""
    train, test = (_classes(os.path.join(folder, split), layout, images) for split in splits)
    for name in sorted(train.keys() ^ test.keys()):
        missing = os.path.join(folder, splits[name in train], name)
        raise UserError(f"class folder {missing} is missing: training and test need the same classes ({layout})")
    validated = VALIDATION not in splits and os.path.isdir(os.path.join(folder, VALIDATION))
    validation = _classes(os.path.join(folder, VALIDATION), layout, images) if validated else {}
    return [train, test, validation]


def _classes(folder: str, layout: str, images: Images) -> dict[str, list[Item]]:
    return {name: images(os.path.join(folder, name)) for name in class_folders(folder, layout)}


def class_folders(folder: str, layout: str) -> list[str]:
    """Return the sorted names of the folders in ``folder``; hidden ones are not data.

    Args:
        folder: should hold a folder a class.
        layout: what an error says of how it should be.

    Raises:
        UserError: where it is missing or has no folders.
    """
    if not os.path.isdir(folder):
        raise UserError(f"data folder {folder} is missing: the layout is {layout}")
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise UserError(f"data folder {folder} has no folders in it: the layout is {layout}")
    return names


def list_images(folder: str) -> list[Item]:
    """Return an item for each image in ``folder``, sorted by name; other kinds of file and hidden ones are not data.

    Raises:
        UserError: where there is none.
    """
    if not os.path.isdir(folder):
        raise UserError(f"data folder {folder} is missing: it should hold the images of a class")
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.is_file() and not entry.name.startswith("."))
    items = [{"image": os.path.join(folder, name)} for name in names if name.lower().endswith(IMAGE_SUFFIXES)]
    if not items:
        raise UserError(f"class folder {folder} has no images: add some ({', '.join(IMAGE_SUFFIXES)}) or remove it")
    return items
