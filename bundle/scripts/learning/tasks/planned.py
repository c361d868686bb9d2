"""From a data set to the tasks of a run: test and validation images set apart, classes divided."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scripts.learning.sources.source import HIDDEN, LISTS, NOT_CHOSEN, OTHER_SETS, Group, Source
from scripts.learning.tasks.holdout import HoldOut, KeepForValidation
from scripts.learning.tasks.labels import require_one_class
from scripts.learning.tasks.record import read_tasks
from scripts.learning.tasks.split import Order, Split, make_tasks
from scripts.learning.tasks.spoilt import mislabelled, uneven
from scripts.learning.tasks.task import Task
from scripts.utils.errors import UserError

OTHER_CLASSES = "images of classes that no task learns"
LEARNT_BEFORE = "images of classes that were learnt before"
BEYOND_LIMIT = "training images beyond planned_tasks#limit or planned_tasks#imbalance"
EXPECTED = (HIDDEN, LISTS, OTHER_SETS, NOT_CHOSEN, OTHER_CLASSES, LEARNT_BEFORE, BEYOND_LIMIT)
"""Reasons that no one need be told of, since a setting says so or nobody would take it for data: it is counted."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PlannedTasks:
    """A data set divided.

    Args:
        tasks: in the order of learning, those learnt before first.
        left_out: what the data set has besides, files, rows or images, by the reason.
    """

    tasks: tuple[Task, ...]
    left_out: Mapping[str, tuple[str, ...]]


def plan_tasks(
    source: Source,
    list_file: str,
    split: Split | None = None,
    order: Order | None = None,
    limit: int | None = None,
    previous: str | None = None,
    test_fraction: float = 0.2,
    validation_fraction: float = 0.0,
    validation_least: int = 20,
    seed: int = 0,
    imbalance: float = 1.0,
    wrong_labels: float = 0.0,
) -> PlannedTasks:
    """Divide a data set into the tasks of a run, and log what is left out; no image is opened.

    Args:
        source: reads the data set.
        list_file: says which images test, where the data set does not; see :class:`scripts.learning.tasks.HoldOut`.
        split: see :func:`scripts.learning.tasks.make_tasks`.
        order: of the classes; see :func:`scripts.learning.tasks.make_tasks`.
        limit: at most this many training images a class; ``None`` takes all.
        previous: folder of the run whose tasks come first; ``None``: there is none.
        test_fraction: share of the images of each class to test with, where there are no test images.
        validation_fraction: share of the training images of each class to validate with, where there are none.
        validation_least: of a class where that share is less, but no more than a fifth of it.
        seed: of what is set apart, and of wrong labels.
        imbalance: how many times the training images of the last class the first one has; 1: all as they are. To try
            methods with, like the next; see :func:`scripts.learning.tasks.spoilt.uneven`.
        wrong_labels: share of the training images of each class that get the label of another class of their task.

    Raises:
        UserError: as the five, or where there is one class in all.
    """
    divided = HoldOut(source, list_file, test_fraction, seed)
    groups = KeepForValidation(divided, validation_fraction, validation_least, seed).groups()
    earlier = read_tasks(previous)
    tasks = make_tasks(groups, split, limit, earlier, order)
    if (imbalance, wrong_labels) != (1, 0):
        require_one_class(tasks[-1].test, "planned_tasks#imbalance, or #wrong_labels,")
    tasks[len(earlier) :] = mislabelled(uneven(tasks[len(earlier) :], imbalance), wrong_labels, seed)
    classes = [name for task in tasks for name in task.classes]
    if len(classes) == 1 and not tasks[0].has_findings:
        raise UserError(
            f"{tasks[0].name} has one class, {classes[0]!r}, and a classifier needs two: put the images of each class "
            "into a folder of its own"
        )
    left_out = _left_out(groups, earlier, tasks[len(earlier) :])
    for reason in (reason for reason in left_out if reason not in EXPECTED):
        logger.warning("Left out: %d %s, the first %s", len(left_out[reason]), reason, left_out[reason][0])
    return PlannedTasks(tuple(tasks), left_out)


def _left_out(groups: Sequence[Group], earlier: Sequence[Task], tasks: Sequence[Task]) -> dict[str, tuple[str, ...]]:
    """Return what groups have left out themselves, and what of them no task takes, by the reason."""
    reasons = {name: LEARNT_BEFORE for task in earlier for name in task.classes}
    reasons |= {name: BEYOND_LIMIT for task in tasks for name in task.classes}
    used = {item["image"] for task in tasks for part in task.parts for item in part}
    found: dict[str, list[str]] = {}
    for group in groups:
        for reason, images in group.left_out.items():
            found.setdefault(reason, []).extend(images)
        for name, image in group.labelled():
            if image not in used:
                found.setdefault(reasons.get(name, OTHER_CLASSES), []).append(image)
    return {reason: tuple(images) for reason, images in found.items()}
