"""Data sets kept as lists: text files of ``path label`` lines, CSV tables, and MONAI's datalist JSON."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from scripts.learning.sources.folders import left_over
from scripts.learning.sources.source import (
    LISTS,
    NO_FILE,
    NO_FINDING,
    Group,
    Item,
    carries_several,
    part_meant,
    refuse_lookalikes,
)
from scripts.utils.errors import UserError
from scripts.utils.tables import read_cells, read_table, read_text

TABLES = (".csv", ".tsv")
BETWEEN_FINDINGS = "|"
WITHOUT_FINDING = ("", "none", "no finding")
"""What a table says of an image that has no finding, in any case."""
ADVICE = (
    "; say which of them is meant with the source's keys 'path', 'label', 'split' and 'group' (--source#label dx; "
    "--source#split '$None' where nothing says what is for training and what for testing)"
)


@dataclass(frozen=True)
class Entry:
    """One image of a list: its path below the root, the names of its classes, and the patient or lesion it is of.

    Where images carry several findings, one without any is of :data:`NO_FINDING`; elsewhere there is one class.
    """

    path: str
    labels: tuple[str, ...]
    group: str | None = None


class ListFiles:
    """Reads two lists of ``path label``: text lines, or the first two columns of a CSV file with a header.

    Args:
        root: the folder that the paths of the lists start from.
        train_list: file with the images to learn from.
        test_list: file with the images to test with.
        images: folder below ``root`` that the paths of the images start from.
        classes: class names; a whole number as label is an index into them, anything else must be one of them.
            ``None``: a class is named after the folder that holds its images, in the order of the labels.
        origin: where the data set can be had, which is said when it is missing.
    """

    def __init__(
        self,
        root: str,
        train_list: str,
        test_list: str,
        images: str = "",
        classes: Sequence[str] | None = None,
        origin: str = "",
    ) -> None:
        self.root = os.path.abspath(root)
        self.lists = {
            split: os.path.join(self.root, file) for split, file in (("train", train_list), ("test", test_list))
        }
        self.images = os.path.join(self.root, images)
        self.classes = None if classes is None else list(classes)
        self.layout = f"lines <path> <label>, paths starting from {self.images}{_had_from(origin)}"

    def groups(self) -> list[Group]:
        """Return the one group."""
        rows = {split: self._rows(path) for split, path in self.lists.items()}
        names = self._named_by_folder(rows) if self.classes is None else self.classes
        entries = {
            split: [Entry(path, (_class_name(label, names, where),)) for path, label, where in listed]
            for split, listed in rows.items()
        }
        for split, listed in entries.items():
            _check_images(listed, self.images, self.lists[split])
        return [_group(self.root, self.images, self.lists.values(), names, entries["train"], entries["test"])]

    def _rows(self, file: str) -> list[tuple[str, str, str]]:
        """Return path, label and where they stand."""
        if file.lower().endswith(TABLES):
            numbered = [(line, (cells + ["", ""])[:2]) for line, cells in read_cells(file)[1:]]
        else:
            lines = io.StringIO(read_text(file, self.layout), newline=None)  # which ends them at CR and LF alone
            numbered = [
                (number, [part.strip() for part in line.rpartition(" ")[::2]])
                for number, line in enumerate(map(str.strip, lines), start=1)
            ]
        rows = [(path, label, f"line {number} of {file}") for number, (path, label) in numbered if path or label]
        for path, label, where in rows:
            if not path or not label:
                raise UserError(f"{where} is {path or label!r}: each line needs an image path and a label")
        return rows

    def _named_by_folder(self, rows: Mapping[str, list[tuple[str, str, str]]]) -> list[str]:
        """Return the names of labels 0, 1, ...: the folders that their images are in."""
        names: dict[int, str] = {}
        for path, label, where in (row for listed in rows.values() for row in listed):
            if not label.isdecimal():
                raise UserError(f"{where} has the label {label!r}: it must be a whole number, or give 'classes'")
            folder = os.path.basename(os.path.dirname(path)) or label
            if names.setdefault(int(label), folder) != folder:
                raise UserError(
                    f"{where} puts an image of folder {folder!r} into class {label}, which holds those of "
                    f"{names[int(label)]!r}: give 'classes', the names of the labels"
                )
        missing = sorted(set(range(len(names))) - names.keys())
        if missing:
            raise UserError(
                f"label {missing[0]} has no image in {' and '.join(self.lists.values())}: labels count from 0"
            )
        return [names[number] for number in range(len(names))]


class LabelsCsv:
    """Reads a CSV file with a column for the path, the class's name and the split.

    Where images carry several findings, the column for the class holds their names with ``|`` between them, and nothing
    (or ``none``, ``no finding``) where there is none; or there is a column of 0 and 1 for each finding.

    The splits are train, test and, where there is one, val, as :func:`scripts.learning.sources.source.part_meant`
    understands them; images of others are left out. Further columns are ignored.

    Args:
        root: the folder that the paths, and the CSV file's, start from.
        file: the CSV file; see :func:`scripts.utils.tables.read_table`.
        path: the column with the path of an image.
        label: the column with the name of its class; not read where there are columns of findings.
        split: the column with ``train``, ``test`` or ``val``; ``None``: there is no split.
        group: the column with what must not be on both sides of a split, such as the patient or the lesion.
        labels: ``one`` class an image, or ``many`` findings.
        findings: the columns of the findings, in label order, where each has one.

    Raises:
        UserError: for columns of findings without ``many``.
    """

    def __init__(
        self,
        root: str,
        file: str = "labels.csv",
        path: str = "path",
        label: str = "label",
        split: str | None = "split",
        group: str | None = None,
        labels: str = "one",
        findings: Sequence[str] = (),
    ) -> None:
        self.root = os.path.abspath(root)
        self.file = os.path.join(self.root, file)
        self.path, self.label, self.split, self.group = path, label, split, group
        self.several, self.findings = carries_several(labels), list(findings)
        if self.findings and not self.several:
            raise UserError(
                f"findings are {', '.join(findings)}, of which an image may have several: give --source#labels many"
            )

    def groups(self) -> list[Group]:
        """Return the one group; its classes are sorted by name, findings with columns in the order of these."""
        told = self.findings or [self.label]
        columns = [name for name in (self.path, *told, self.split, self.group) if name]
        entries: dict[str, list[Entry]] = {"train": [], "test": [], "val": []}
        others: dict[str, list[Entry]] = {}
        rows = read_table(self.file, columns, ADVICE, may_be_empty=[self.label] if self.several else ())
        for line, row in rows.items():
            entry = Entry(row[self.path], self._labels(row, line), row[self.group] if self.group else None)
            part = part_meant(row[self.split]) if self.split else "train"
            if part in entries:
                entries[part].append(entry)
            else:
                others.setdefault(f"rows of the split {part!r}", []).append(entry)
        train, test, held = entries["train"], entries["test"], entries["val"]
        for listed in (train, test) if self.split else (train,):
            _check_images(listed, self.root, self.file)
        names = self.findings or sorted({name for entry in train + test for name in entry.labels} - {NO_FINDING})
        refuse_lookalikes([*names, *(name for entry in held for name in entry.labels)], self.file)
        known = {*names, *([NO_FINDING] if self.several else [])}
        validation = [entry for entry in held if known.issuperset(entry.labels)]
        if len(validation) < len(held):
            others["rows for validation of classes that are not learnt"] = [
                entry for entry in held if not known.issuperset(entry.labels)
            ]
        if validation:
            _check_images(validation, self.root, self.file)
        left_out: dict[str, list[str]] = {}
        for reason, listed in others.items():
            for path in (os.path.join(self.root, entry.path) for entry in listed):
                left_out.setdefault(reason if os.path.isfile(path) else NO_FILE, []).append(path)
        group = _group(self.root, self.root, [self.file], names, train, test, validation, left_out=left_out)
        return [replace(group, several=self.several)]

    def _labels(self, row: Mapping[str, str], line: int) -> tuple[str, ...]:
        """Return what an image has, :data:`NO_FINDING` where that is nothing.

        Raises:
            UserError: for a finding's cell that is neither 0 nor 1; it names the line.
        """
        if not self.several:
            return (row[self.label],)
        if self.findings:
            for name in self.findings:
                if row[name].strip() not in ("0", "1"):
                    raise UserError(f"line {line} of {self.file} has {row[name]!r} in {name!r}: a finding is 0 or 1")
            found = [name for name in self.findings if row[name].strip() == "1"]
        else:
            names = [name.strip() for name in row[self.label].split(BETWEEN_FINDINGS)]
            found = [name for name in names if name.casefold() not in WITHOUT_FINDING]
        return tuple(dict.fromkeys(found)) or (NO_FINDING,)


class Datalist:
    """Reads MONAI's datalist JSON (the Medical Segmentation Decathlon's form): lists of images with their labels.

    A label is the name of a class, or a number, which the file's own ``labels`` table may name.

    Args:
        root: the folder that the paths of the images, and the file's, start from.
        file: the JSON file.
        train: the key of the list of training images.
        test: the key of the list of test images; ``None``: there is no split.
        group: the key of an entry with what must not be on both sides of a split, such as the patient.
    """

    def __init__(
        self,
        root: str,
        file: str = "datalist.json",
        train: str = "training",
        test: str | None = "test",
        group: str | None = None,
    ) -> None:
        self.root = os.path.abspath(root)
        self.file = os.path.join(self.root, file)
        self.keys = [key for key in (train, test) if key is not None]
        self.group = group

    def groups(self) -> list[Group]:
        """Return the one group; its classes are in the order of the ``labels`` table, or sorted by number or name."""
        content = self._content()
        names = {str(key): str(name) for key, name in dict(content.get("labels") or {}).items()}
        lists = [[self._entry(found, names) for found in self._list(content, key)] for key in self.keys]
        for entries in lists:
            _check_images(entries, self.root, self.file)
        found = {label for entries in lists for entry in entries for label in entry.labels}
        ordered = [name for _, name in sorted(names.items(), key=lambda pair: _by_number(pair[0])) if name in found]
        ordered += sorted(found - set(ordered), key=_by_number)
        test = lists[1] if len(lists) > 1 else []
        return [_group(self.root, self.root, [self.file], ordered, lists[0], test)]

    def _content(self) -> dict[str, Any]:
        # MONAI's load_decathlon_datalist takes a label for a path where a file or folder has its name
        try:
            content = json.loads(read_text(self.file, "MONAI's datalist form"))
        except ValueError as error:
            raise UserError(f"list {self.file} is no JSON ({error}): mend it") from error
        if not isinstance(content, dict):
            raise UserError(f"list {self.file} is no JSON object: it needs the keys {', '.join(self.keys)}")
        return content

    def _list(self, content: Mapping[str, Any], key: str) -> list[Any]:
        if not isinstance(content.get(key), list):
            found = ", ".join(name for name, value in content.items() if isinstance(value, list)) or "none"
            raise UserError(f"{self.file} has no list {key!r}, only {found}: name the lists (keys 'train' and 'test')")
        return content[key]

    def _entry(self, found: Any, names: Mapping[str, str]) -> Entry:
        for key in ("image", "label", *([self.group] if self.group else [])):
            if not isinstance(found, dict) or not isinstance(found.get(key), (str, int)):
                raise UserError(f"{self.file} has the entry {found!r}: it needs one {key!r}, a text or a number")
        label = str(found["label"])
        return Entry(str(found["image"]), (names.get(label, label),), str(found[self.group]) if self.group else None)


def _class_name(label: str, classes: Sequence[str], where: str) -> str:
    if label in classes:
        return label
    if label.isdecimal() and int(label) < len(classes):
        return classes[int(label)]
    raise UserError(
        f"{where} has the label {label!r}: it must be 0 to {len(classes) - 1} or one of {', '.join(classes)}"
    )


def _check_images(entries: Sequence[Entry], root: str, source: str) -> None:
    """Refuse a list that leaves the root, names a missing file, or names nothing."""
    for entry in entries:
        if os.path.isabs(entry.path) or ".." in entry.path.replace("\\", "/").split("/"):
            raise UserError(f"{source} names {entry.path!r}: paths must lie below {root}")
    missing = [entry.path for entry in entries if not os.path.isfile(os.path.join(root, entry.path))]
    if missing:
        raise UserError(
            f"{source} names {len(missing)} missing image{'s' * (len(missing) > 1)}, "
            f"the first {os.path.join(root, missing[0])}: put them there, or take them out of the list"
        )
    if not entries:
        raise UserError(f"{source} names no images of one of the splits: training and test are needed")


def _group(
    root: str,
    images: str,
    lists: Iterable[str],
    classes: Sequence[str],
    *parts_listed: list[Entry],
    left_out: Mapping[str, list[str]] | None = None,
) -> Group:
    """Make a group of the entries to learn from, to test with and, where there are some, to validate with.

    Args:
        root: of the data set.
        images: the folder that paths start from.
        lists: the files that name the images.
        classes: in label order.
        parts_listed: entries to learn from, to test with and to validate with.
        left_out: images that the lists name and that are in none of these, by the reason.
    """
    group = Group(os.path.basename(root), tuple(classes), *(_by_class(images, part, classes) for part in parts_listed))
    named, own = dict(left_out or {}), {os.path.normpath(path) for path in lists}
    used = [*group.images(), *(path for paths in named.values() for path in paths)]
    rest = left_over(root, used, lambda path: LISTS if path in own else "files that no list names")
    return replace(group, left_out={**named, **rest})


def _by_class(root: str, entries: list[Entry], classes: Sequence[str]) -> dict[str, list[Item]]:
    items: dict[str, list[Item]] = {name: [] for name in classes}
    for entry in entries:
        item = {"image": os.path.join(root, entry.path)}
        for label in entry.labels:
            items.setdefault(label, []).append(item if entry.group is None else {**item, "group": entry.group})
    return items


def _by_number(name: str) -> tuple[bool, int, str]:
    """Sort 2 before 10, and numbers before names."""
    return (not name.isdecimal(), int(name) if name.isdecimal() else 0, name)


def _had_from(origin: str) -> str:
    return f"; get the data set from {origin}" if origin else ""
