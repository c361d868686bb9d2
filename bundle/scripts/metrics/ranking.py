"""How well a score ranks positives above negatives. All are exact for ties and need no threshold chosen before."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.stats import mannwhitneyu, norm

TPR_PERCENT = 95


def auroc(scores: ArrayLike, positive: ArrayLike) -> float | None:
    """Area under the ROC curve: how often a positive scores above a negative, a tie counting one half.

    Args:
        scores: [N], higher = more likely positive.
        positive: [N] of bool.

    Returns:
        0..1, or None without positives, without negatives, or with a score that is not a number.
    """
    groups = _groups(scores, positive)
    if groups is None:
        return None
    positives, negatives = groups
    wins = mannwhitneyu(positives, negatives, method="asymptotic").statistic
    return float(wins) / (len(positives) * len(negatives))


def fpr_at_95_tpr(scores: ArrayLike, positive: ArrayLike) -> float | None:
    """Share of the negatives that pass the highest threshold which lets at least 95 % of the positives pass.

    Args:
        scores: [N], higher = more likely positive.
        positive: [N] of bool.

    Returns:
        0..1, or None as :func:`auroc`.
    """
    groups = _groups(scores, positive)
    if groups is None:
        return None
    positives, negatives = groups
    needed = -(-TPR_PERCENT * len(positives) // 100)  # ceiling, in integers: 0.95 has no exact float
    threshold = np.sort(positives)[-needed]
    return float(np.mean(negatives >= threshold))


def average_precision(scores: ArrayLike, positive: ArrayLike) -> float | None:
    """Area under the precision-recall curve as a sum of steps: the mean, over positives, of the precision there.

    Args:
        scores: [N], higher = more likely positive.
        positive: [N] of bool.

    Returns:
        0..1, or None as :func:`auroc`.
    """
    groups = _groups(scores, positive)
    if groups is None:
        return None
    positives, everything = np.sort(groups[0]), np.sort(np.concatenate(groups))
    hits = len(positives) - np.searchsorted(positives, positives)
    passed = len(everything) - np.searchsorted(everything, positives)
    return float(np.mean(hits / passed))


def auroc_interval(
    value: float | None, positives: int, negatives: int, confidence: float = 0.95
) -> tuple[float | None, float | None]:
    """Confidence interval of an AUROC: all areas whose own standard error reaches the one observed.

    It stays within 0..1 and keeps a width where the observed area is 1, which DeLong's interval does not.

    Source: Newcombe, Statistics in Medicine 25 (2006) 559-573, method 5, with the variance of Hanley and McNeil
    (Radiology 143 (1982) 29-36).

    Args:
        value: the observed area, 0..1 or None.
        positives: number of positives, at least 1.
        negatives: number of negatives, at least 1.
        confidence: 0..1, exclusive.

    Returns:
        Lower and upper bound, or (None, None) where there is no area.
    """
    if value is None:
        return None, None
    z = float(norm.ppf(0.5 + confidence / 2))
    spread = (positives + negatives) / 2 - 1

    def outside(area: float) -> float:
        shape = 1 + spread * (1 - area) / (2 - area) + spread * area / (1 + area)
        return abs(value - area) - z * math.sqrt(area * (1 - area) * shape / (positives * negatives))

    edge = 1e-12  # outside(0) or outside(1) is zero where the observed area is 0 or 1: the bound wanted lies within
    lower = 0.0 if value <= edge else float(brentq(outside, 0.0, min(value, 1 - edge)))
    upper = 1.0 if value >= 1 - edge else float(brentq(outside, max(value, edge), 1.0))
    return lower, upper


def _groups(scores: ArrayLike, positive: ArrayLike) -> Sequence[NDArray[np.float64]] | None:
    values, chosen = np.asarray(scores, dtype=np.float64), np.asarray(positive, dtype=bool)
    if values.shape != chosen.shape or values.ndim != 1:
        raise ValueError(f"scores {values.shape} and positive {chosen.shape} must be one list each of one length")
    if chosen.all() or not chosen.any() or np.isnan(values).any():
        return None
    return values[chosen], values[~chosen]
