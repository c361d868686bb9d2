"""Confusion matrix, sensitivity, specificity and AUROC a class against counting loops."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from scripts.metrics.clinical import class_rows, confusion_matrix, confusion_table, table_of
from scripts.utils.files import write_csv

CLASSES = ["BKL", "MEL", "vascular, other", "none"]


def results(seed: int = 0) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Labels of the first three of four classes, with probabilities."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, 150, p=[0.7, 0.2, 0.1])
    weights = rng.random((150, 4)) + 0.6 * np.eye(4)[labels]
    return labels, weights / weights.sum(axis=1, keepdims=True)


def wilson(part: int, whole: int) -> tuple[float, float]:
    z, share = 1.959963984540054, part / whole
    centre = (share + z * z / (2 * whole)) / (1 + z * z / whole)
    half = z / (1 + z * z / whole) * math.sqrt(share * (1 - share) / whole + z * z / (4 * whole * whole))
    return centre - half, centre + half


def test_confusion_matrix_counts_true_by_predicted() -> None:
    labels, probabilities = results()
    expected = [[0] * 4 for _ in range(4)]
    for label, guess in zip(labels, probabilities.argmax(axis=1), strict=True):
        expected[label][guess] += 1
    assert confusion_matrix(labels, probabilities.argmax(axis=1), 4).tolist() == expected


def test_rows_equal_counting_loops() -> None:
    labels, probabilities = results()
    guess = probabilities.argmax(axis=1)
    for number, row in enumerate(class_rows(labels, probabilities, CLASSES)[:3]):
        own, other = labels == number, labels != number
        found = sum(1 for i in range(150) if own[i] and guess[i] == number)
        refused = sum(1 for i in range(150) if other[i] and guess[i] != number)
        assert (row["class"], row["images"]) == (CLASSES[number], int(own.sum()))
        assert row["sensitivity"] == pytest.approx(found / own.sum())
        assert row["specificity"] == pytest.approx(refused / other.sum())
        assert (row["sensitivity_low"], row["sensitivity_high"]) == pytest.approx(wilson(found, int(own.sum())))
        assert (row["specificity_low"], row["specificity_high"]) == pytest.approx(wilson(refused, int(other.sum())))
        pairs = [a > b for a in probabilities[own, number] for b in probabilities[other, number]]
        assert row["auroc"] == pytest.approx(sum(pairs) / len(pairs))


@pytest.mark.parametrize("seed", range(5))
def test_intervals_contain_the_estimate(seed: int) -> None:
    for row in class_rows(*results(seed), CLASSES)[:3]:
        for name in ("sensitivity", "specificity", "auroc"):
            low, value, high = (row[name + end] for end in ("_low", "", "_high"))
            assert isinstance(low, float) and isinstance(value, float) and isinstance(high, float)
            assert 0.0 <= low <= value <= high <= 1.0
            assert low < high


def test_a_perfect_classifier_is_not_certain() -> None:
    labels = np.array([0, 0, 0, 1, 1])
    for row in class_rows(labels, np.eye(2)[labels], ["a", "b"]):
        for name in ("sensitivity", "specificity", "auroc"):
            low, high = row[f"{name}_low"], row[f"{name}_high"]
            assert row[name] == 1.0
            assert high == pytest.approx(1.0)
            assert isinstance(low, float) and 0.1 < low < 0.9


def test_a_class_without_test_images_has_no_sensitivity() -> None:
    labels, probabilities = results()
    row = class_rows(labels, probabilities, CLASSES)[3]
    missing = [name for name in row if name.startswith(("sensitivity", "auroc"))]
    assert len(missing) == 6
    assert all(row[name] is None for name in missing)
    assert row["images"] == 0
    assert isinstance(row["specificity"], float)


def test_a_single_class_has_no_specificity() -> None:
    row = class_rows([0, 0], [[0.9, 0.1], [0.2, 0.8]], ["a", "b"])[0]
    assert row["specificity"] is None
    assert row["auroc"] is None
    assert row["sensitivity"] == 0.5


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        class_rows([0, 1], [[0.5, 0.5]], ["a", "b"])


def test_csv_keeps_names_and_numbers(tmp_path: Path) -> None:
    labels, probabilities = results()
    rows = class_rows(labels, probabilities, CLASSES)
    write_csv(tmp_path / "classes.csv", table_of(rows))
    with open(tmp_path / "classes.csv", newline="", encoding="utf-8") as file:
        read = list(csv.DictReader(file))
    assert [row["class"] for row in read] == CLASSES
    assert float(read[1]["auroc_low"]) == rows[1]["auroc_low"]
    assert read[3]["sensitivity"] == ""
    counts = confusion_matrix(labels, probabilities.argmax(axis=1), 4)
    write_csv(tmp_path / "confusion.csv", confusion_table(counts, CLASSES))
    with open(tmp_path / "confusion.csv", newline="", encoding="utf-8") as file:
        table = list(csv.reader(file))
    assert table[0][1:] == CLASSES
    assert [[int(cell) for cell in row[1:]] for row in table[1:]] == counts.tolist()
