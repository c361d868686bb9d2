"""Data sets kept as folders of images: PATH16's tree of several sets, and one folder a class."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NoReturn

from scripts.imaging.decoding.kinds import PICTURES, is_picture
from scripts.learning.sources.source import CLOSED, HIDDEN, OTHER_SETS, Group, Item, part_meant, refuse_lookalikes
from scripts.utils.errors import UserError
from scripts.utils.files import plain_name

SPLITS = ("train", "test")
VALIDATION = "val"
PATHOLOGY_FOLDER = "Pathology16"
PATHOLOGY_LAYOUT = f"<dataset_dir>/{PATHOLOGY_FOLDER}/<set>/<train and test>/<class>/<image>"

Images = Callable[[str], list[Item]]
Classes = dict[str, list[Item]]


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
        groups = [self._group(name) for name in self.sets or found]
        used = [image for group in groups for image in group.images()]
        others = tuple(os.path.join(self.folder, name, "") for name in found if name not in (self.sets or found))
        left_out = left_over(self.folder, used, lambda path: OTHER_SETS if path.startswith(others) else unused(path))
        return [replace(groups[0], left_out=left_out), *groups[1:]]

    def _group(self, name: str) -> Group:
        parts = _split_classes(os.path.join(self.folder, name), PATHOLOGY_LAYOUT, list_images, SPLITS)
        train, test, validation = ({f"{name}/{member}": part[member] for member in part} for part in parts)
        return Group(name, tuple(train), train, test, validation)


class ImageFolder:
    """Reads one folder a class: ``<root>/<train or test>/<class>/<image>``, or ``<root>/<class>/<image>``.

    Without the two folders there is no split; :class:`scripts.learning.tasks.HoldOut` makes one.

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
        group = Group(os.path.basename(self.root), tuple(train), *parts)
        return [replace(group, left_out=left_over(self.root, group.images()))]


def read_classes(
    root: str, layout: str, images: Images, splits: tuple[str, str] = SPLITS
) -> tuple[Classes, Classes, Classes]:
    """Read one folder a class, below the two folders of a split or, where neither is there, below ``root``.

    Args:
        root: the folder that holds the split's folders, or the class folders.
        layout: what an error says of how it should be.
        images: finds the images in the folder of a class.
        splits: names of the split's folders; see :func:`scripts.learning.sources.source.part_meant`.

    Returns:
        Items to learn from, to test with (none without a split) and, where a split has a folder ``val`` of its own, to
        validate with, by class name.

    Raises:
        UserError: where a folder is missing or empty, or the two sides have other classes.
    """
    if {part_meant(split) for split in splits} & {part_meant(name) for name in class_folders(root, layout)}:
        return _split_classes(root, layout, images, splits)
    return _classes(root, layout, images), {}, {}


def _split_classes(
    folder: str, layout: str, images: Images, splits: tuple[str, str]
) -> tuple[Classes, Classes, Classes]:
    """Read the splits of one set, by class name; training and test must have the same classes."""
    names = class_folders(folder, layout)
    folders = [os.path.join(folder, _meant(split, names, folder)) for split in splits]
    train, test = (_classes(split, layout, images) for split in folders)
    refuse_lookalikes([*train, *test], folder)
    for name in sorted(train.keys() ^ test.keys()):
        missing = os.path.join(folders[name in train], name)
        raise UserError(f"class folder {missing} is missing: training and test need the same classes ({layout})")
    validation = os.path.join(folder, _meant(VALIDATION, names, folder))
    validated = validation not in folders and os.path.isdir(validation)
    return train, test, _classes(validation, layout, images) if validated else {}


def _meant(split: str, names: Sequence[str], folder: str) -> str:
    """Return which of the folders is a split's, or its usual name where none is."""
    found = [name for name in names if part_meant(name) == part_meant(split)]
    if len(found) > 1:
        raise UserError(f"folders {found[0]} and {found[1]} of {folder} mean the same: put them into one")
    return found[0] if found else split


def _classes(folder: str, layout: str, images: Images) -> Classes:
    return {name: images(os.path.join(folder, name)) for name in class_folders(folder, layout)}


def class_folders(folder: str, layout: str) -> list[str]:
    """Return the sorted names of the folders in ``folder``; hidden ones are not data.

    Args:
        folder: should hold a folder a class.
        layout: what an error says of how it should be.

    Raises:
        UserError: where it is missing, cannot be opened or has no folders, or a name is no UTF-8.
    """
    if not os.path.isdir(folder):
        wrong = "is a file" if os.path.isfile(folder) else "is missing"
        raise UserError(f"data folder {folder} {wrong}: the layout is {layout}")
    names = sorted(entry.name for entry in _entries(folder) if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise UserError(f"data folder {folder} has no folders in it: the layout is {layout}")
    for name in names:
        if plain_name(name) != name:
            raise UserError(f"folder {plain_name(name)} of {folder} has a name that is no UTF-8: rename it")
    return names


def list_images(folder: str) -> list[Item]:
    """Return an item for each picture in ``folder``, known by its content, sorted by name; hidden files are not data.

    Raises:
        UserError: where there is none, or the folder cannot be opened.
    """
    if not os.path.isdir(folder):
        raise UserError(f"data folder {folder} is missing: it should hold the images of a class")
    paths = sorted(entry.path for entry in _entries(folder) if entry.is_file() and not entry.name.startswith("."))
    items = [{"image": path} for path in paths if plain_name(path) == path and is_picture(path)]
    if not items:
        raise UserError(f"class folder {folder} has no images: add some ({', '.join(PICTURES)}) or remove it")
    return items


def unused(path: str, known: Callable[[str], bool] = is_picture) -> str:
    """Say why a file among folders of classes is not used.

    Args:
        path: of the file.
        known: whether a file is of a kind that is read.
    """
    if not known(path):
        return "files of kinds that are not read"
    return "files that lie where no class is" if plain_name(path) == path else "files whose names are no UTF-8"


def left_over(folder: str, used: Iterable[str], reason: Callable[[str], str] = unused) -> dict[str, list[str]]:
    """Return the files in ``folder``, and the folders within, that are not used, by the reason.

    Args:
        folder: of the data set.
        used: paths.
        reason: why a file that is not hidden is not used.
    """
    known = {os.path.normpath(path) for path in used}
    closed: list[str] = []
    paths = files_below(folder, hidden=True, onerror=lambda error: closed.append(plain_name(str(error.filename))))
    others: dict[str, list[str]] = {CLOSED: closed} if closed else {}
    for path in paths:
        if path not in known:
            hidden = any(name.startswith(".") for name in os.path.relpath(path, folder).split(os.sep))
            others.setdefault(HIDDEN if hidden else reason(path), []).append(plain_name(path))
    return others


def files_below(
    folder: str, hidden: bool = False, onerror: Callable[[OSError], object] = lambda error: _cannot_open(error)
) -> list[str]:
    """Return the files in ``folder``, and the folders within, in order.

    Args:
        folder: where to look.
        hidden: whether hidden files, and what lies in hidden folders, count too.
        onerror: takes the error of a folder that cannot be opened.

    Raises:
        UserError: a folder cannot be opened, and ``onerror`` is not given.
    """
    found: list[str] = []
    for parent, folders, files in os.walk(folder, onerror=onerror):
        folders[:] = sorted(name for name in folders if hidden or not name.startswith("."))
        found += [os.path.join(parent, name) for name in sorted(files) if hidden or not name.startswith(".")]
    return found


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        return _cannot_open(error)


def _cannot_open(error: OSError) -> NoReturn:
    folder = plain_name(str(error.filename))
    raise UserError(f"folder {folder} cannot be opened ({error.strerror}): let it be read, or move it away") from error
