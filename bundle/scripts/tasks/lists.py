"""Data sets kept as lists: text files of ``path label`` lines, and a ``labels.csv``."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence

from scripts.errors import UserError
from scripts.tasks.task import Group, Item

COLUMNS = ("path", "label", "split")

Entry = tuple[str, str]
"""Path below the root, and class name."""


class ListFiles:
    """Reads two text files of lines ``path label``.

    Args:
        root: the folder that the paths of the images, and of the lists, start from.
        train_list: file with the images to learn from.
        test_list: file with the images to test with.
        classes: class names; a whole number as label is an index into them, anything else must be one of them.
        order: class names in task order; ``None`` keeps the order of ``classes``.
    """

    def __init__(
        self, root: str, train_list: str, test_list: str, classes: Sequence[str], order: Sequence[str] | None = None
    ) -> None:
        self.root = os.path.abspath(root)
        self.train_list = os.path.join(self.root, train_list)
        self.test_list = os.path.join(self.root, test_list)
        self.classes = list(classes)
        self.order = order

    def groups(self) -> list[Group]:
        """Return the one group."""
        train, test = self._read(self.train_list), self._read(self.test_list)
        return [_group(self.root, train, test, _ordered(self.classes, self.order, self.train_list))]

    def _read(self, path: str) -> list[Entry]:
        entries = []
        for number, line in enumerate(_text(path, "lines <path> <label>").splitlines(), start=1):
            if not line.strip():
                continue
            image, _, label = line.strip().rpartition(" ")
            if not image:
                raise UserError(f"line {number} of {path} is {line!r}: each line needs an image path and a label")
            entries.append((image.strip(), self._class(label, f"line {number} of {path}")))
        return _checked(entries, self.root, path)

    def _class(self, label: str, where: str) -> str:
        if label in self.classes:
            return label
        if label.isdecimal() and int(label) < len(self.classes):
            return self.classes[int(label)]
        raise UserError(
            f"{where} has the label {label!r}: it must be 0 to {len(self.classes) - 1} or one of "
            f"{', '.join(self.classes)}"
        )


class LabelsCsv:
    """Reads a CSV file with the columns ``path``, ``label`` (class name) and ``split``.

    The splits are train and test; others, such as val, are left out. Further columns are ignored.

    Args:
        root: the folder that the paths, and the CSV file's, start from.
        file: the CSV file.
        order: class names in task order; ``None`` sorts them by name.
    """

    def __init__(self, root: str, file: str = "labels.csv", order: Sequence[str] | None = None) -> None:
        self.root = os.path.abspath(root)
        self.file = os.path.join(self.root, file)
        self.order = order

    def groups(self) -> list[Group]:
        """Return the one group."""
        table = csv.DictReader(_text(self.file, f"columns {','.join(COLUMNS)}").splitlines())
        for column in COLUMNS:
            if column not in (table.fieldnames or ()):
                raise UserError(f"{self.file} has no column {column!r}: it needs {', '.join(COLUMNS)}")
        rows = list(table)
        for number, row in enumerate(rows, start=2):
            for column in COLUMNS:
                if not row[column]:
                    raise UserError(f"line {number} of {self.file} has no {column}: every image needs one")
        train, test = (
            _checked([(row["path"], row["label"]) for row in rows if row["split"] == split], self.root, self.file)
            for split in ("train", "test")
        )
        classes = sorted({label for _, label in train + test})
        return [_group(self.root, train, test, _ordered(classes, self.order, self.file))]


def _text(path: str, layout: str) -> str:
    if not os.path.isdir(os.path.dirname(path)):
        raise UserError(f"data folder {os.path.dirname(path)} is missing: it needs {os.path.basename(path)}")
    try:
        with open(path, encoding="utf-8-sig") as file:
            return file.read()
    except FileNotFoundError:
        raise UserError(f"list {path} is missing: it needs {layout}, paths starting from its root") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"list {path} cannot be read ({error}): it must be UTF-8 text, {layout}") from error


def _checked(entries: list[Entry], root: str, source: str) -> list[Entry]:
    """Refuse a list that leaves the root, names a missing file, or names nothing."""
    for image, _ in entries:
        if os.path.isabs(image) or ".." in image.replace("\\", "/").split("/"):
            raise UserError(f"{source} names {image!r}: paths must lie below {root}")
    missing = [image for image, _ in entries if not os.path.isfile(os.path.join(root, image))]
    if missing:
        raise UserError(f"{source} names {len(missing)} missing images, the first {os.path.join(root, missing[0])}")
    if not entries:
        raise UserError(f"{source} names no images of one of the splits: training and test are needed")
    return entries


def _ordered(classes: list[str], order: Sequence[str] | None, source: str) -> list[str]:
    if order is None:
        return classes
    if sorted(order) != sorted(classes):
        raise UserError(f"order is {', '.join(order)}, but the classes of {source} are {', '.join(classes)}")
    return list(order)


def _group(root: str, train: list[Entry], test: list[Entry], classes: list[str]) -> Group:
    return Group(os.path.basename(root), tuple(classes), *(_by_class(root, part, classes) for part in (train, test)))


def _by_class(root: str, entries: list[Entry], classes: list[str]) -> dict[str, list[Item]]:
    items: dict[str, list[Item]] = {name: [] for name in classes}
    for image, name in entries:
        items[name].append({"image": os.path.join(root, image)})
    return items
