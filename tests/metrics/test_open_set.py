"""Task identification and open-set figures."""

from __future__ import annotations

import numpy as np
import pytest

from scripts.metrics.open_set import OpenSet, mean_open_set, open_set_figures, task_identification_accuracy
from scripts.metrics.ranking import auroc, average_precision, fpr_at_95_tpr


def test_task_identification_counts_images_of_learnt_classes_given_to_their_task() -> None:
    rng = np.random.default_rng(0)
    sizes, labels = [2, 4, 1], rng.integers(0, 9, 200)  # classes 7 and 8 are not learnt
    guess = rng.integers(0, 3, 200)
    owner = [0, 0, 1, 1, 1, 1, 2]
    hits = [owner[label] == task for label, task in zip(labels, guess, strict=True) if label < 7]
    assert task_identification_accuracy(labels, guess, sizes) == pytest.approx(sum(hits) / len(hits))
    assert task_identification_accuracy([7, 8], [0, 1], sizes) is None


def test_learnt_classes_are_the_positives() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 8, 300)
    scores = rng.random(300) + (labels < 6)
    known = labels < 6
    assert open_set_figures(labels, scores, learnt=6) == {
        "auroc": auroc(scores, known),
        "fpr95": fpr_at_95_tpr(scores, known),
        "average_precision": average_precision(scores, known),
    }
    perfect = {"auroc": 1.0, "fpr95": 0.0, "average_precision": 1.0}
    assert open_set_figures(labels, -labels.astype(float), learnt=6) == perfect


def test_after_the_last_task_nothing_is_unknown() -> None:
    assert open_set_figures([0, 1, 2], [0.1, 0.2, 0.3], learnt=3) is None
    assert open_set_figures([3, 4], [0.1, 0.2], learnt=3) is None


def test_mean_is_over_the_stages_with_unknown_classes() -> None:
    stages: list[OpenSet | None] = [
        {"auroc": 0.5, "fpr95": 1.0, "average_precision": 0.2},
        {"auroc": 1.0, "fpr95": 0.0, "average_precision": None},
        None,
    ]
    assert mean_open_set(stages) == {"auroc": 0.75, "fpr95": 0.5, "average_precision": None}
    assert mean_open_set([None]) is None
