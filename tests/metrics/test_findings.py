"""Figures of several findings an image: those of MONAI and scikit-learn, and nothing of what nobody has said."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.metrics import compute_confusion_matrix_metric, compute_roc_auc, get_confusion_matrix
from sklearn.metrics import average_precision_score

from scripts.metrics import accuracy, decisions, finding_rows, mean_class_recall, mean_of_rows
from scripts.metrics.findings import finding_table

NAMES, THRESHOLDS = ("effusion", "nodule", "mass"), (0.4, 0.5, 0.6)


def results(seed: int = 0, count: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = (rng.random((count, 3)) < [0.5, 0.2, 0.3]).astype(int)
    return labels, (0.4 * labels + rng.random((count, 3)).round(2)).clip(0, 1)


@pytest.mark.parametrize("seed", range(3))
def test_figures_are_those_of_monai_and_scikit_learn(seed: int) -> None:
    labels, scores = results(seed)
    rows = finding_rows(labels, scores, NAMES, THRESHOLDS)
    truth, said = torch.from_numpy(labels), torch.from_numpy(scores)
    areas = compute_roc_auc(said, truth, average="none")
    assert [row["auroc"] for row in rows] == pytest.approx(list(areas))
    precisions = [average_precision_score(labels[:, number], scores[:, number]) for number in range(3)]
    assert [row["average_precision"] for row in rows] == pytest.approx(precisions)
    counts = get_confusion_matrix((said >= torch.tensor(THRESHOLDS, dtype=torch.double)).long(), truth).sum(0)
    for figure in ("sensitivity", "specificity"):
        expected = compute_confusion_matrix_metric(figure, counts).tolist()
        assert [row[figure] for row in rows] == pytest.approx(expected)
        lows = [row[f"{figure}_low"] <= row[figure] <= row[f"{figure}_high"] for row in rows]  # type: ignore[operator]
        assert all(lows)
    assert mean_of_rows(rows, "auroc") == pytest.approx(np.mean(areas))


def test_what_nobody_has_said_counts_nowhere() -> None:
    labels, scores = results()
    hidden = labels.copy()
    hidden[::2, 1] = -1
    rows, fewer = (
        finding_rows(hidden, scores, NAMES, THRESHOLDS),
        finding_rows(labels[1::2], scores[1::2], NAMES, THRESHOLDS),
    )
    assert rows[1] == fewer[1]
    assert rows[0] == finding_rows(labels, scores, NAMES, THRESHOLDS)[0]
    assert len(decisions(hidden, scores, THRESHOLDS)[0]) == labels.size - 30


def test_accuracy_and_recall_of_the_decisions_are_means_over_findings() -> None:
    labels, scores = results()
    pairs, rows = decisions(labels, scores, THRESHOLDS), finding_rows(labels, scores, NAMES, THRESHOLDS)
    assert accuracy(*pairs) == pytest.approx(((scores >= THRESHOLDS) == labels).mean())
    means = [mean_of_rows(rows, figure) for figure in ("sensitivity", "specificity")]
    assert mean_class_recall(*pairs) == pytest.approx(np.mean(means))  # type: ignore[arg-type]


def test_a_finding_without_images_has_no_figures() -> None:
    labels, scores = results()
    labels[:, 2] = 0
    rows = finding_rows(labels, scores, NAMES, THRESHOLDS)
    assert (rows[2]["images"], rows[2]["sensitivity"], rows[2]["auroc"]) == (0, None, None)
    assert mean_of_rows(rows, "auroc") is None
    assert finding_table(rows).splitlines()[-1].split()[:3] == ["mass", "0", "-"]
