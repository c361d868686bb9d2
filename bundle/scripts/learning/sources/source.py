"""What a data set on disk offers to be split into tasks."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from scripts.utils.errors import UserError

Item = dict[str, Any]
"""One image: ``image`` (a file path, or an npz reference ``<path>.npz#<split>/<index>``), ``label`` in a task (see
:mod:`scripts.learning.tasks.labels`), and ``group`` where the data set tells it: the patient or lesion that the image
is of, which is never written anywhere."""


NO_FINDING = ""
"""Under which images are listed that may carry several findings, and have none."""

HIDDEN, LISTS = "hidden files", "lists and tables"
OTHER_SETS = "files of sets that were not asked for"
NOT_CHOSEN = "files that 'series' or 'presentation#pictures' does not choose"
NO_FILE, CLOSED = NOT_COUNTED = ("rows of other parts that name no file", "folders that cannot be opened")
"""What is left out and is no file."""


@dataclass(frozen=True)
class Group:
    """One data set, the natural unit of a task: a folder of PATH16, one npz file, one list of images.

    Args:
        name: the data set's name.
        classes: names of its classes, in label order.
        train: items without labels to learn from, by class name.
        test: items without labels to test with, by class name; empty where the source has no split.
        validation: items of the data set's own validation part, by class name; empty where it has none.
        left_out: files and rows that are in none of them, by the reason.
        several: whether an image may be of several classes at once, which are then findings: it is listed under each
            that it has, one that has none under :data:`NO_FINDING`.

    Raises:
        UserError: as :func:`refuse_lookalikes`.
    """

    name: str
    classes: tuple[str, ...]
    train: dict[str, list[Item]]
    test: dict[str, list[Item]]
    validation: dict[str, list[Item]] = field(default_factory=dict)
    left_out: dict[str, list[str]] = field(default_factory=dict, kw_only=True)
    several: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        refuse_lookalikes([*self.classes, *self.train, *self.test, *self.validation], self.name)

    def images(self) -> list[str]:
        """Return the references of all items."""
        return [image for _, image in self.labelled()]

    def labelled(self) -> list[tuple[str, str]]:
        """Return class and reference of all items."""
        parts = (self.train, self.test, self.validation)
        return [(name, item["image"]) for part in parts for name, items in part.items() for item in items]


class Source(Protocol):
    """Reads a data set on disk."""

    def groups(self) -> list[Group]:
        """Return the data sets found, in task order."""
        ...


def refuse_lookalikes(names: Iterable[str], where: str) -> None:
    """Refuse classes that a person would take for one: their names differ in blanks, case or Unicode form alone.

    Args:
        names: of classes; a name may come again.
        where: what they are of.

    Raises:
        UserError: it names both.
    """
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault("".join(unicodedata.normalize("NFKC", name.casefold()).split()), name)
        if other != name:
            raise UserError(
                f"classes {ascii(other)} and {ascii(name)} of {where} differ in blanks, case or Unicode form alone: "
                "give them one name, or two that differ"
            )


LABELS = ("one", "many")


def carries_several(labels: str) -> bool:
    """Say whether images carry several findings, as the setting ``labels`` of a source has it.

    Raises:
        UserError: for another setting.
    """
    if labels not in LABELS:
        raise UserError(f"labels is {labels!r}: give {' or '.join(LABELS)} (key 'source#labels')")
    return labels == LABELS[1]


def part_meant(name: str) -> str:
    """Return ``train``, ``test`` or ``val`` for what people call those, in any case; other names as they are."""
    plain = name.strip().casefold()
    return next((part for part, names in _PARTS.items() if plain in names), name)


_PARTS = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "val": ("val", "valid", "validation"),
}
