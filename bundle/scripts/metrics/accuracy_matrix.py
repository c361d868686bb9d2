"""The accuracy matrix, and the figures of continual learning that are read off it.

Row i is measured after learning task i, column j on the test images of task j, among all classes learnt by then. None
stands for what was not measured: a later task, or one whose test images are gone. A figure that needs such a cell is
None as well, since a mean over fewer cells is another figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Row = list[float | None]


def accuracy(labels: ArrayLike, predictions: ArrayLike) -> float | None:
    """Share of the images that are given their class.

    Args:
        labels: [N], class numbers.
        predictions: [N], class numbers.

    Returns:
        0..1, or None without images.
    """
    truth, guess = _pair(labels, predictions)
    return float(np.mean(truth == guess)) if len(truth) else None


def mean_class_recall(labels: ArrayLike, predictions: ArrayLike) -> float | None:
    """Mean, over the classes that have images, of the share of a class's images given that class (MCR).

    torchmetrics' macro recall counts a class that has no image but was predicted as 0, so it is not used here.

    Args:
        labels: [N], class numbers.
        predictions: [N], class numbers.

    Returns:
        0..1, or None without images.
    """
    truth, guess = _pair(labels, predictions)
    if not len(truth):
        return None
    images = np.bincount(truth)
    hits = np.bincount(truth[truth == guess], minlength=len(images))
    present = images > 0
    return float(np.mean(hits[present] / images[present]))


def task_of_label(labels: ArrayLike, sizes: Sequence[int]) -> NDArray[np.int64]:
    """Say which task each label is of.

    Args:
        labels: [N], class numbers over all tasks, in the order of learning.
        sizes: number of classes of each task.

    Returns:
        [N], task numbers; ``len(sizes)`` for a class of none of them.
    """
    return np.searchsorted(np.cumsum(sizes), np.asarray(labels), side="right").astype(np.int64)


def mean_of_all(values: Sequence[float | None]) -> float | None:
    """Take the mean, or None where a value is missing or there is none.

    Args:
        values: fractions or None.

    Returns:
        Their mean or None.
    """
    measured = [value for value in values if value is not None]
    return sum(measured) / len(measured) if measured and len(measured) == len(values) else None


def forgetting(rows: Sequence[Sequence[float | None]]) -> float | None:
    """Mean, over the old tasks, of the best accuracy a task had before minus what it has now.

    Source: Chaudhry et al., Riemannian Walk (ECCV 2018). Negative where old tasks got better.

    Args:
        rows: the accuracy matrix, square or its lower triangle.

    Returns:
        -1..1, or None without old tasks.
    """
    return mean_of_all([_fallen(rows, task) for task in range(len(rows) - 1)])


def backward_transfer(rows: Sequence[Sequence[float | None]]) -> float | None:
    """Mean, over the old tasks, of the accuracy now minus the one just after the task was learnt.

    Source: Lopez-Paz and Ranzato, Gradient Episodic Memory (NeurIPS 2017).

    Args:
        rows: the accuracy matrix, square or its lower triangle.

    Returns:
        -1..1, or None without old tasks.
    """
    return mean_of_all([_difference(rows[-1][task], rows[task][task]) for task in range(len(rows) - 1)])


class AccuracyMatrix:
    """Collects the evaluations after each task.

    Attributes:
        accuracies: accuracy over all test images of the classes learnt, one a stage; None where the test images of one
            of the tasks learnt are missing.
        mean_class_recalls: the same for MCR.
    """

    def __init__(self) -> None:
        self.accuracies: Row = []
        self.mean_class_recalls: Row = []
        self._accuracy: list[Row] = []
        self._recall: list[Row] = []

    def __len__(self) -> int:
        """Number of tasks learnt."""
        return len(self.accuracies)

    def update(self, labels: ArrayLike, predictions: ArrayLike, sizes: Sequence[int]) -> None:
        """Add the evaluation after learning a task.

        A task without a single image in ``labels`` counts as not measured; leave one out whole if only a part of its
        images can be read. Tasks before this one that were never evaluated get a row of None.

        Args:
            labels: [N], class numbers over all tasks; images of classes not learnt yet are left out.
            predictions: [N], class numbers.
            sizes: number of classes of each task learnt so far, this one last.

        Raises:
            ValueError: this task's evaluation, or a later one's, is there already.
        """
        if len(sizes) <= len(self):
            raise ValueError(f"the evaluation after task {len(sizes) - 1} was added before")
        while len(self) < len(sizes) - 1:
            self._append([None] * (len(self) + 1), [None] * (len(self) + 1), None, None)
        truth, guess = _pair(labels, predictions)
        task = task_of_label(truth, sizes)
        parts = [task == number for number in range(len(sizes))]
        row = [accuracy(truth[part], guess[part]) for part in parts]
        recalls = [mean_class_recall(truth[part], guess[part]) for part in parts]
        learnt = (task < len(sizes)) & (None not in row)
        self._append(
            row, recalls, accuracy(truth[learnt], guess[learnt]), mean_class_recall(truth[learnt], guess[learnt])
        )

    def state_dict(self) -> dict[str, Any]:
        """Return plain lists, for a checkpoint that is loaded with ``weights_only``."""
        return {
            "accuracy": [list(row) for row in self._accuracy],
            "recall": [list(row) for row in self._recall],
            "accuracies": list(self.accuracies),
            "mean_class_recalls": list(self.mean_class_recalls),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned.

        Args:
            state: the lists.
        """
        self._accuracy = [list(row) for row in state["accuracy"]]
        self._recall = [list(row) for row in state["recall"]]
        self.accuracies = list(state["accuracies"])
        self.mean_class_recalls = list(state["mean_class_recalls"])

    def until(self, tasks: int) -> AccuracyMatrix:
        """Return the evaluations after the first ``tasks`` tasks."""
        found = AccuracyMatrix()
        found.load_state_dict({name: rows[:tasks] for name, rows in self.state_dict().items()})
        return found

    @property
    def accuracy_matrix(self) -> list[Row]:
        """Square; row = after learning task i, column = on task j, None above the diagonal."""
        return _square(self._accuracy)

    @property
    def recall_matrix(self) -> list[Row]:
        """The same with MCR over the classes of task j."""
        return _square(self._recall)

    @property
    def average_accuracy(self) -> float | None:
        """Mean of the accuracies over the stages (average incremental accuracy)."""
        return mean_of_all(self.accuracies)

    @property
    def final_accuracy(self) -> float | None:
        """Accuracy over all classes after the last task."""
        return self.accuracies[-1] if self.accuracies else None

    @property
    def average_mean_class_recall(self) -> float | None:
        """Mean of the MCRs over the stages."""
        return mean_of_all(self.mean_class_recalls)

    @property
    def final_mean_class_recall(self) -> float | None:
        """MCR over all classes after the last task."""
        return self.mean_class_recalls[-1] if self.mean_class_recalls else None

    @property
    def forgetting(self) -> float | None:
        """See :func:`forgetting`."""
        return forgetting(self._accuracy)

    @property
    def backward_transfer(self) -> float | None:
        """See :func:`backward_transfer`."""
        return backward_transfer(self._accuracy)

    def _append(self, row: Row, recalls: Row, accuracy: float | None, recall: float | None) -> None:
        self._accuracy.append(row)
        self._recall.append(recalls)
        self.accuracies.append(accuracy)
        self.mean_class_recalls.append(recall)


def _pair(labels: ArrayLike, predictions: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    truth, guess = np.asarray(labels, dtype=np.int64), np.asarray(predictions, dtype=np.int64)
    if truth.shape != guess.shape or truth.ndim != 1:
        raise ValueError(f"labels {truth.shape} and predictions {guess.shape} must be one list each of one length")
    return truth, guess


def _square(rows: Sequence[Row]) -> list[Row]:
    return [[*row, *[None] * (len(rows) - len(row))] for row in rows]


def _difference(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first - second


def _fallen(rows: Sequence[Sequence[float | None]], task: int) -> float | None:
    earlier = [row[task] for row in rows[task:-1]]
    measured = [value for value in earlier if value is not None]
    return _difference(max(measured), rows[-1][task]) if len(measured) == len(earlier) else None
