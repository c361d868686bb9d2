"""The accuracy matrix and its figures against loops a reader can check."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from scripts.metrics.accuracy_matrix import (
    AccuracyMatrix,
    Row,
    accuracy,
    backward_transfer,
    forgetting,
    mean_class_recall,
    task_of_label,
)

Evaluation = tuple[NDArray[np.int64], NDArray[np.int64]]
TASKS = ([2, 2, 2, 2], [1, 5, 2], [3], [8, 11, 9])


def evaluations(sizes: list[int], seed: int) -> list[Evaluation]:
    """Random labels of all tasks, unequal a class, with predictions among the classes learnt, one pair a stage."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(sum(sizes)), rng.integers(1, 30, sum(sizes))))
    result = []
    for stage in range(len(sizes)):
        guess = rng.integers(0, sum(sizes[: stage + 1]), len(labels))
        result.append((labels, np.where(rng.random(len(labels)) < 0.6, labels, guess)))
    return result


def filled(sizes: list[int], results: list[Evaluation]) -> AccuracyMatrix:
    matrix = AccuracyMatrix()
    for stage, (labels, predictions) in enumerate(results):
        matrix.update(labels, predictions, sizes[: stage + 1])
    return matrix


def plain_accuracy(pairs: list[tuple[int, int]]) -> float:
    return sum(label == guess for label, guess in pairs) / len(pairs)


def plain_recall(pairs: list[tuple[int, int]]) -> float:
    classes = {label for label, _ in pairs}
    return sum(plain_accuracy([pair for pair in pairs if pair[0] == name]) for name in classes) / len(classes)


def plain_pairs(result: Evaluation, first: int, end: int) -> list[tuple[int, int]]:
    return [(int(label), int(guess)) for label, guess in zip(*result, strict=True) if first <= label < end]


@pytest.mark.parametrize("sizes", TASKS)
@pytest.mark.parametrize("plain", [plain_accuracy, plain_recall])
def test_rows_and_stages_equal_a_plain_reference(sizes: list[int], plain: object) -> None:
    results = evaluations(sizes, seed=sum(sizes))
    matrix = filled(sizes, results)
    by_accuracy = plain is plain_accuracy
    rows = matrix.accuracy_matrix if by_accuracy else matrix.recall_matrix
    stages = matrix.accuracies if by_accuracy else matrix.mean_class_recalls
    ends = np.cumsum([0, *sizes])
    for stage, result in enumerate(results):
        expected = [plain(plain_pairs(result, ends[j], ends[j + 1])) for j in range(stage + 1)]  # type: ignore[operator]
        assert rows[stage][: stage + 1] == pytest.approx(expected, abs=1e-12)
        assert rows[stage][stage + 1 :] == [None] * (len(sizes) - stage - 1)
        whole = plain(plain_pairs(result, 0, ends[stage + 1]))  # type: ignore[operator]
        assert stages[stage] == pytest.approx(whole, abs=1e-12)


@pytest.mark.parametrize("sizes", [sizes for sizes in TASKS if len(sizes) > 1])
def test_figures_equal_a_plain_reference(sizes: list[int]) -> None:
    matrix = filled(sizes, evaluations(sizes, seed=7))
    rows, last = np.array(matrix.accuracy_matrix, dtype=float), len(sizes) - 1
    drops = [max(rows[i, j] for i in range(j, last)) - rows[last, j] for j in range(last)]
    gains = [rows[last, j] - rows[j, j] for j in range(last)]
    assert matrix.forgetting == pytest.approx(sum(drops) / last)
    assert matrix.backward_transfer == pytest.approx(sum(gains) / last)
    assert matrix.average_accuracy == pytest.approx(np.mean(np.array(matrix.accuracies, dtype=float)))
    assert matrix.final_accuracy == matrix.accuracies[-1]
    assert matrix.average_mean_class_recall == pytest.approx(np.mean(np.array(matrix.mean_class_recalls, dtype=float)))
    assert matrix.final_mean_class_recall == matrix.mean_class_recalls[-1]


def test_forgetting_counts_from_the_best_and_transfer_from_the_first() -> None:
    rows: list[Row] = [[0.6, None, None], [0.9, 0.8, None], [0.5, 0.7, 1.0]]
    assert forgetting(rows) == pytest.approx(((0.9 - 0.5) + (0.8 - 0.7)) / 2)
    assert backward_transfer(rows) == pytest.approx(((0.5 - 0.6) + (0.7 - 0.8)) / 2)


def test_one_task_has_nothing_to_forget() -> None:
    matrix = filled([3], evaluations([3], seed=1))
    assert matrix.forgetting is None
    assert matrix.backward_transfer is None
    assert matrix.average_accuracy == matrix.final_accuracy == matrix.accuracy_matrix[0][0]


def test_a_task_whose_test_images_are_gone_is_none_and_so_are_the_figures_that_need_it() -> None:
    sizes = [2, 3, 2]
    results = evaluations(sizes, seed=3)
    complete = filled(sizes, results)
    labels, predictions = results[2]
    kept = labels >= 2
    results[2] = (labels[kept], predictions[kept])
    matrix = filled(sizes, results)
    assert matrix.accuracy_matrix[2] == [None, *complete.accuracy_matrix[2][1:]]
    assert matrix.recall_matrix[2] == [None, *complete.recall_matrix[2][1:]]
    assert matrix.accuracy_matrix[:2] == complete.accuracy_matrix[:2]
    assert matrix.accuracies == [*complete.accuracies[:2], None]
    assert matrix.mean_class_recalls == [*complete.mean_class_recalls[:2], None]
    for name in ("average_accuracy", "final_accuracy", "average_mean_class_recall", "final_mean_class_recall"):
        assert getattr(matrix, name) is None
    assert matrix.forgetting is None
    assert matrix.backward_transfer is None


def test_a_cell_missing_in_between_leaves_backward_transfer_but_not_forgetting() -> None:
    rows: list[Row] = [[0.6, None, None], [None, 0.8, None], [0.5, 0.7, 1.0]]
    assert forgetting(rows) is None
    assert backward_transfer(rows) == pytest.approx(-0.1)


def test_stages_that_were_not_evaluated_are_rows_of_none() -> None:
    sizes = [2, 2, 2]
    labels, predictions = evaluations(sizes, seed=5)[-1]
    matrix = AccuracyMatrix()
    matrix.update(labels, predictions, sizes)
    assert len(matrix) == 3
    assert matrix.accuracy_matrix[:2] == [[None] * 3] * 2
    assert None not in matrix.accuracy_matrix[2]
    assert matrix.average_accuracy is None
    assert matrix.final_accuracy == pytest.approx(float(np.mean(labels == predictions)))


def test_a_stage_is_added_once() -> None:
    matrix = filled([2], evaluations([2], seed=0))
    with pytest.raises(ValueError, match="added before"):
        matrix.update([0, 1], [0, 1], [2])


def test_recall_weighs_classes_and_ignores_those_without_images() -> None:
    labels, predictions = [0, 0, 0, 0, 2], [0, 0, 0, 1, 2]
    assert accuracy(labels, predictions) == pytest.approx(4 / 5)
    assert mean_class_recall(labels, predictions) == pytest.approx((3 / 4 + 1) / 2)


def test_no_images_give_none_and_unequal_lists_are_refused() -> None:
    assert accuracy([], []) is None
    assert mean_class_recall([], []) is None
    with pytest.raises(ValueError, match="one length"):
        accuracy([0, 1], [0])


def test_task_of_label_counts_classes() -> None:
    assert task_of_label([0, 1, 2, 5, 6, 7], [2, 4, 1]).tolist() == [0, 0, 1, 1, 2, 3]


def test_state_survives_a_weights_only_checkpoint(tmp_path: Path) -> None:
    sizes = [2, 3, 2]
    results = evaluations(sizes, seed=9)
    results[1] = (results[1][0][:0], results[1][1][:0])
    matrix = filled(sizes, results)
    torch.save(matrix.state_dict(), tmp_path / "state.pt")
    restored = AccuracyMatrix()
    restored.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert restored.state_dict() == matrix.state_dict()
    assert restored.accuracy_matrix == matrix.accuracy_matrix
    assert restored.recall_matrix == matrix.recall_matrix


def test_state_is_a_copy() -> None:
    matrix = filled([2, 2], evaluations([2, 2], seed=2))
    before = pickle.dumps(matrix.accuracy_matrix)
    state = matrix.state_dict()
    other = AccuracyMatrix()
    other.load_state_dict(state)
    state["accuracy"][0][0] = -1.0
    state["accuracies"].clear()
    assert pickle.dumps(matrix.accuracy_matrix) == before
    assert other.state_dict() == matrix.state_dict()
