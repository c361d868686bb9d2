"""Training images made few and uneven, or wrongly labelled: to see what a method takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from scripts.learning.sources.source import Item
from scripts.learning.tasks.split import thin
from scripts.learning.tasks.task import Task
from scripts.utils.errors import UserError


def uneven(tasks: Sequence[Task], ratio: float) -> list[Task]:
    """Leave the classes fewer and fewer training images, from all of the first one to a share 1 / ratio of the last.

    The k-th of C classes keeps ``most * ratio^(-k / (C - 1))`` images, ``most`` those of the largest class, chosen at
    even distances; at least one, and never more than it has. Source: Cui et al., Class-balanced loss based on effective
    number of samples (CVPR 2019), section 5.1.

    Args:
        tasks: in the order of learning.
        ratio: of the first class's images to the last one's, at least 1.

    Raises:
        UserError: for a ratio below 1.
    """
    if ratio < 1:
        raise UserError(f"planned_tasks#imbalance is {ratio}: give how many times the images of the last class, from 1")
    if ratio == 1:
        return list(tasks)
    labels = [label for task in tasks for label in _labels(task)]
    owned = {label: [item for task in tasks for item in task.train if item["label"] == label] for label in labels}
    most = max((len(items) for items in owned.values()), default=0)
    kept: dict[int, list[Item]] = {}
    for place, label in enumerate(labels):
        count = round(most * ratio ** (-place / max(len(labels) - 1, 1)))
        kept[label] = thin(owned[label], max(count, 1))
    return [replace(task, train=tuple(item for label in _labels(task) for item in kept[label])) for task in tasks]


def mislabelled(tasks: Sequence[Task], share: float, seed: int) -> list[Task]:
    """Give a share of the training images of each class the label of another class of their task.

    A task of one class stays as it is: nobody would take its images for classes that are not there yet.

    Args:
        tasks: in the order of learning.
        share: of the images of each class, rounded, in [0, 1).
        seed: of the choice.

    Raises:
        UserError: for a share out of range.
    """
    if not 0 <= share < 1:
        raise UserError(f"planned_tasks#wrong_labels is {share}: give a share from 0 to 1, such as 0.1")
    return [replace(task, train=tuple(_mislabelled(task, share, seed))) for task in tasks]


def _mislabelled(task: Task, share: float, seed: int) -> list[Item]:
    draw, items = np.random.default_rng([seed, task.first]), list(task.train)
    for label in _labels(task) if len(task.classes) > 1 else ():
        own = [number for number, item in enumerate(task.train) if item["label"] == label]
        others = [other for other in _labels(task) if other != label]
        for number in draw.permutation(own)[: round(share * len(own))]:
            items[number] = {**items[number], "label": int(draw.choice(others))}
    return items


def _labels(task: Task) -> range:
    return range(task.first, task.first + len(task.classes))
