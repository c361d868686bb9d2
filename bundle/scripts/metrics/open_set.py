"""What the `others` heads can do besides classify: say which task an image is of, and whether it is of any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from scripts.metrics.accuracy_matrix import accuracy, mean_of_all, task_of_label
from scripts.metrics.ranking import auroc, average_precision, fpr_at_95_tpr

OpenSet = Mapping[str, float | None]


def task_identification_accuracy(labels: ArrayLike, task_predictions: ArrayLike, sizes: Sequence[int]) -> float | None:
    """Share of the test images of learnt classes that are given to their task.

    Args:
        labels: [N], class numbers over all tasks; classes not learnt yet are left out.
        task_predictions: [N], the task each image was given to.
        sizes: number of classes of each task learnt so far.

    Returns:
        0..1, or None without an image of a learnt class.
    """
    tasks = task_of_label(labels, sizes)
    learnt = tasks < len(sizes)
    return accuracy(tasks[learnt], np.asarray(task_predictions)[learnt])


def open_set_figures(labels: ArrayLike, known_scores: ArrayLike, learnt: int) -> dict[str, float | None] | None:
    """Tell classes learnt (positive) from classes not learnt yet (negative) by a score.

    Args:
        labels: [N], class numbers over all tasks, in the order of learning.
        known_scores: [N], higher = more known: 1 - the smallest P(others).
        learnt: number of classes learnt so far.

    Returns:
        ``auroc``, ``fpr95`` (FPR at 95 % TPR) and ``average_precision``, each 0..1, or None where all test images are
        of learnt classes (as after the last task) or none is.
    """
    known = np.asarray(labels) < learnt
    if known.all() or not known.any():
        return None
    return {
        "auroc": auroc(known_scores, known),
        "fpr95": fpr_at_95_tpr(known_scores, known),
        "average_precision": average_precision(known_scores, known),
    }


def mean_open_set(stages: Sequence[OpenSet | None]) -> dict[str, float | None] | None:
    """Average the open-set figures over the stages that have them: all but the last, after which nothing is unknown.

    Args:
        stages: the results of :func:`open_set_figures`, one a task learnt.

    Returns:
        The mean of each figure, or None where no stage has them.
    """
    measured = [stage for stage in stages if stage is not None]
    if not measured:
        return None
    return {name: mean_of_all([stage[name] for stage in measured]) for name in measured[0]}
