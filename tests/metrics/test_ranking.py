"""Ranking figures against brute force over all pairs and all thresholds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from scripts.metrics.ranking import auroc, auroc_interval, average_precision, fpr_at_95_tpr

CASES = [(seed, size, levels) for seed, size in ((0, 7), (1, 60), (2, 301)) for levels in (3, 20, 10**9)]


def scored(seed: int, size: int, levels: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Scores in so many levels (few: many ties), higher for positives, outside 0..1 too."""
    rng = np.random.default_rng(seed)
    positive = rng.permutation(np.arange(size) < max(1, size // 3))
    return np.round((rng.normal(size=size) + positive) * levels) / levels, positive


def thresholds(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """True and false positives at every threshold, from the highest."""
    return [
        (sum(positive[scores >= cut]), sum(~positive[scores >= cut]))
        for cut in sorted(set(scores.tolist()), reverse=True)
    ]


@pytest.mark.parametrize(("seed", "size", "levels"), CASES)
def test_auroc_is_the_share_of_pairs_in_order(seed: int, size: int, levels: int) -> None:
    scores, positive = scored(seed, size, levels)
    wins = [(p > n) + 0.5 * (p == n) for p in scores[positive] for n in scores[~positive]]
    assert auroc(scores, positive) == pytest.approx(sum(wins) / len(wins), abs=1e-12)


@pytest.mark.parametrize(("seed", "size", "levels"), CASES)
def test_fpr_is_the_lowest_among_thresholds_that_pass_95_per_cent(seed: int, size: int, levels: int) -> None:
    scores, positive = scored(seed, size, levels)
    rates = [fp / sum(~positive) for tp, fp in thresholds(scores, positive) if 100 * tp >= 95 * sum(positive)]
    assert fpr_at_95_tpr(scores, positive) == pytest.approx(min(rates), abs=1e-12)


def test_nineteen_of_twenty_positives_are_95_per_cent() -> None:
    scores = [*range(1, 21), 1.5]
    assert fpr_at_95_tpr(scores, [True] * 20 + [False]) == 0.0


@pytest.mark.parametrize(("seed", "size", "levels"), CASES)
def test_average_precision_sums_the_steps_of_recall(seed: int, size: int, levels: int) -> None:
    scores, positive = scored(seed, size, levels)
    area, before = 0.0, 0
    for tp, fp in thresholds(scores, positive):
        area += (tp - before) / sum(positive) * tp / (tp + fp)
        before = tp
    assert average_precision(scores, positive) == pytest.approx(area, abs=1e-12)


@pytest.mark.parametrize("figure", [auroc, fpr_at_95_tpr, average_precision])
def test_nothing_to_rank_gives_none(figure: object) -> None:
    for scores, positive in (([], []), ([1.0], [True]), ([1.0], [False]), ([1.0, math.nan], [True, False])):
        assert figure(scores, positive) is None  # type: ignore[operator]


@pytest.mark.parametrize("value", [0.0, 1e-9, 0.3, 0.5, 0.93, 1 - 1e-9, 1.0])
@pytest.mark.parametrize(("positives", "negatives"), [(1, 1), (3, 50), (200, 300), (100000, 7)])
def test_interval_contains_the_area_and_solves_newcombes_equation(value: float, positives: int, negatives: int) -> None:
    low, high = auroc_interval(value, positives, negatives)
    assert low is not None and high is not None
    assert 0.0 <= low <= value <= high <= 1.0
    assert high - low > 1e-9
    for bound in (low, high):
        if 0.0 < bound < 1.0:
            q1, q2, extra = bound / (2 - bound), 2 * bound**2 / (1 + bound), (positives + negatives) / 2 - 1
            variance = bound * (1 - bound) + extra * (q1 - bound**2) + extra * (q2 - bound**2)
            error = math.sqrt(variance / (positives * negatives))
            assert abs(value - bound) == pytest.approx(1.959964 * error, rel=1e-4, abs=1e-9)


def test_interval_covers_the_true_area_in_about_95_of_100_samples() -> None:
    rng = np.random.default_rng(0)
    truth = 0.5 * (1 + math.erf(1.5 / 2))  # two unit normals 1.5 apart
    positive = np.arange(70) < 30
    covered = 0
    for _ in range(300):
        low, high = auroc_interval(auroc(rng.normal(size=70) + 1.5 * positive, positive), 30, 40)
        covered += low is not None and high is not None and low <= truth <= high
    assert 0.91 <= covered / 300 <= 0.99


def test_no_area_has_no_interval() -> None:
    assert auroc_interval(None, 0, 5) == (None, None)
