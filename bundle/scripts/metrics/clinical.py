"""What a clinician asks of a classifier: what it finds of each class, what it wrongly calls, how sure that is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest

from scripts.metrics.ranking import auroc, auroc_interval

ClassRow = dict[str, str | int | float | None]


def confusion_matrix(labels: ArrayLike, predictions: ArrayLike, classes: int) -> NDArray[np.int64]:
    """Count the images of each class by the class they are given.

    Args:
        labels: [N], class numbers.
        predictions: [N], class numbers.
        classes: number of classes.

    Returns:
        [classes, classes], row = true class, column = predicted class.
    """
    truth, guess = (np.asarray(values, dtype=np.int64) for values in (labels, predictions))
    counts: NDArray[np.int64] = np.bincount(truth * classes + guess, minlength=classes**2).reshape(classes, classes)
    return counts


def class_rows(labels: ArrayLike, probabilities: ArrayLike, classes: Sequence[str]) -> list[ClassRow]:
    """Sensitivity, specificity and AUROC of each class against the others, with 95 % intervals.

    The predicted class is the most probable one. Intervals: Wilson's score interval for the two shares, Newcombe's for
    the AUROC (:func:`scripts.metrics.ranking.auroc_interval`).

    Args:
        labels: [N], class numbers.
        probabilities: [N, C], higher = more likely.
        classes: the C names.

    Returns:
        A row a class: ``class``, ``images``, then ``sensitivity``, ``specificity`` and ``auroc``, each followed by its
        ``..._low`` and ``..._high``; 0..1, None where the class, or every other one, has no test image.
    """
    truth, scores = np.asarray(labels, dtype=np.int64), np.asarray(probabilities, dtype=np.float64)
    if scores.shape != (len(truth), len(classes)):
        raise ValueError(f"probabilities {scores.shape} do not fit {len(truth)} labels and {len(classes)} classes")
    counts = confusion_matrix(truth, scores.argmax(axis=1), len(classes))
    return [
        _class_row(name, counts, number, auroc(scores[:, number], truth == number))
        for number, name in enumerate(classes)
    ]


def table_of(rows: Sequence[ClassRow]) -> list[list[object]]:
    """Turn :func:`class_rows` into a header and rows, for :func:`scripts.utils.files.write_csv`.

    Args:
        rows: at least one.

    Returns:
        The header, then a list a class.
    """
    return [list[object](rows[0]), *(list[object](row.values()) for row in rows)]


def confusion_table(counts: NDArray[np.int64], classes: Sequence[str]) -> list[list[object]]:
    """Turn a confusion matrix into a header and rows, for :func:`scripts.utils.files.write_csv`.

    Args:
        counts: [C, C], row = true class.
        classes: the C names.

    Returns:
        The header (predicted classes), then a list a true class.
    """
    return [
        ["true \\ predicted", *classes],
        *([name, *row.tolist()] for name, row in zip(classes, counts, strict=True)),
    ]


def _class_row(name: str, counts: NDArray[np.int64], number: int, area: float | None) -> ClassRow:
    hits, images, called = int(counts[number, number]), int(counts[number].sum()), int(counts[:, number].sum())
    others = int(counts.sum()) - images
    return row_of(name, (hits, images), (others - (called - hits), others), area)


def row_of(name: str, found: tuple[int, int], ruled_out: tuple[int, int], area: float | None) -> ClassRow:
    """Return the row of a class or a finding, with 95 % intervals.

    Args:
        name: of it.
        found: how many of its images are called by its name, and of how many.
        ruled_out: how many of the others are not, and of how many.
        area: its AUROC.
    """
    low, high = auroc_interval(area, found[1], ruled_out[1])
    return {
        "class": name,
        "images": found[1],
        **_share("sensitivity", *found),
        **_share("specificity", *ruled_out),
        "auroc": area,
        "auroc_low": low,
        "auroc_high": high,
    }


def _share(name: str, part: int, whole: int) -> dict[str, float | None]:
    """Return a share and Wilson's 95 % interval of it, under ``name``; None of nothing."""
    if not whole:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    interval = binomtest(part, whole).proportion_ci(confidence_level=0.95, method="wilson")
    return {name: part / whole, f"{name}_low": float(interval.low), f"{name}_high": float(interval.high)}
