"""What is learnt at once (`Task`), and what a data set on disk offers to be split into tasks (`Group`, `Source`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

Item = dict[str, Any]
"""One image: ``image`` (a file path, or an npz reference ``<path>.npz#<split>/<index>``), ``label`` in a task, and
``group`` where the data set tells it: the patient or lesion that the image is of, which is never written anywhere."""


@dataclass(frozen=True)
class Task:
    """Classes that are learnt together.

    Args:
        name: what tables and pictures call the task.
        classes: names of its classes, unique over all tasks.
        first: label of its first class; its labels are ``first`` to ``first + len(classes) - 1``.
        train: items to learn from, with labels counted over all tasks.
        test: items to test with, with labels counted over all tasks.
        validation: items that are neither learnt from nor tested with: what is fitted to a finished network (its
            temperature) is fitted on them.
    """

    name: str
    classes: tuple[str, ...]
    first: int
    train: tuple[Item, ...]
    test: tuple[Item, ...]
    validation: tuple[Item, ...] = ()


@dataclass(frozen=True)
class Group:
    """One data set, the natural unit of a task: a folder of PATH16, one npz file, one list of images.

    Args:
        name: the data set's name.
        classes: names of its classes, in label order.
        train: items without labels to learn from, by class name.
        test: items without labels to test with, by class name; empty where the source has no split.
        validation: items of the data set's own validation part, by class name; empty where it has none.
    """

    name: str
    classes: tuple[str, ...]
    train: dict[str, list[Item]]
    test: dict[str, list[Item]]
    validation: dict[str, list[Item]] = field(default_factory=dict)


class Source(Protocol):
    """Reads a data set on disk."""

    def groups(self) -> list[Group]:
        """Return the data sets found, in task order."""
        ...
