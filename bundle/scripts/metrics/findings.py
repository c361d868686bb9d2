"""What is found where an image may carry several findings: each is told present or absent on its own.

Labels are 1 (present), 0 (absent) and -1 (nobody said), [N, C]; what nobody has said of an image is not counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tabulate import tabulate

from scripts.metrics.accuracy_matrix import mean_of_all
from scripts.metrics.clinical import ClassRow, row_of
from scripts.metrics.ranking import auroc, average_precision

Numbers = NDArray[np.int64]


def decisions(labels: ArrayLike, scores: ArrayLike, thresholds: ArrayLike) -> tuple[Numbers, Numbers]:
    """Return what is true of each finding of each image, and what is said, as numbers that exclude each other.

    Number 2 c stands for "finding c is absent", 2 c + 1 for "present": so the accuracy is the share of findings that
    are told right, and the mean class recall the mean of all sensitivities and specificities.

    Args:
        labels: [N, C].
        scores: [N, C].
        thresholds: from which score on each finding is present, [C].

    Returns:
        Two lists of one length.
    """
    truth = np.asarray(labels, np.int64)
    called = np.asarray(scores, np.float64) >= np.asarray(thresholds, np.float64)
    known, finding = truth >= 0, np.arange(truth.shape[1])
    return (2 * finding + truth)[known], (2 * finding + called)[known]


def finding_rows(labels: ArrayLike, scores: ArrayLike, names: Sequence[str], thresholds: ArrayLike) -> list[ClassRow]:
    """Sensitivity, specificity, AUROC and average precision of each finding, with 95 % intervals as of classes.

    Args:
        labels: [N, C].
        scores: [N, C], higher = more likely.
        names: of the C findings.
        thresholds: from which score on each is present, [C].

    Returns:
        A row a finding: ``class``, ``images`` that have it, then ``sensitivity``, ``specificity`` and ``auroc``, each
        followed by its ``..._low`` and ``..._high``, and ``average_precision``; 0..1, None where no image, or every
        one, has it.
    """
    truth, said = np.asarray(labels, np.int64), np.asarray(scores, np.float64)
    limits = np.broadcast_to(np.asarray(thresholds, np.float64), len(names))
    return [
        _row(name, truth[known, number] == 1, said[known, number], limits[number])
        for number, name in enumerate(names)
        for known in [truth[:, number] >= 0]
    ]


def mean_of_rows(rows: Sequence[ClassRow], figure: str) -> float | None:
    """Return the mean of a figure over findings (of ``average_precision``: mAP), None where one has none."""
    return mean_of_all([None if row[figure] is None else float(row[figure] or 0.0) for row in rows])


def finding_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Set :func:`finding_rows` as text for a terminal, in per cent."""
    columns = ("sensitivity", "specificity", "auroc", "average_precision")
    cells = [
        [row["class"], row["images"], *("-" if row[name] is None else f"{100 * row[name]:.1f}" for name in columns)]
        for row in rows
    ]
    headers = ["finding", "images with it", *(name.replace("_", " ") for name in columns)]
    return tabulate(cells, headers=headers, colalign=("left", *["right"] * 5), disable_numparse=True)


def _row(name: str, present: NDArray[np.bool_], scores: NDArray[np.float64], threshold: float) -> ClassRow:
    called = scores >= threshold
    found = int((called & present).sum()), int(present.sum())
    ruled_out = int((~called & ~present).sum()), int((~present).sum())
    row = row_of(name, found, ruled_out, auroc(scores, present))
    return {**row, "average_precision": average_precision(scores, present)}
