"""What is learnt at once."""

from __future__ import annotations

from dataclasses import dataclass

from scripts.learning.sources.source import Item
from scripts.learning.tasks.labels import has_findings


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

    @property
    def has_findings(self) -> bool:
        """Whether its classes are findings, of which an image may carry several."""
        return has_findings(self.test)

    @property
    def parts(self) -> tuple[tuple[Item, ...], ...]:
        """Items to learn from, to validate with and to test with."""
        return self.train, self.validation, self.test
