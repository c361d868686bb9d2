"""Whether a classifier is as often right as it says, and the temperature that brings it there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from torchmetrics.functional.classification import multiclass_calibration_error

BINS = 15
COLDEST, HOTTEST = 1e-3, 1e3
"""Between these a temperature is looked for."""
DRAWS = 200


def calibration_error(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Return the expected calibration error (ECE) with 15 bins of equal width, 0..1.

    Source: Guo et al., On calibration of modern neural networks (ICML 2017), equation 3.

    Args:
        labels: [N], class numbers.
        probabilities: [N, C], each row sums to 1.
    """
    scores = torch.as_tensor(np.asarray(probabilities, dtype=np.float64))
    truth = torch.as_tensor(np.asarray(labels, dtype=np.int64))
    return float(multiclass_calibration_error(scores, truth, num_classes=scores.shape[1], n_bins=BINS, norm="l1"))


def probabilities_at(logits: ArrayLike, temperature: float) -> NDArray[np.float64]:
    """Return the softmax of logits [N, C] that are divided by a temperature."""
    return np.exp(log_softmax(np.asarray(logits, np.float64) / temperature, axis=1))


def smoothed_loss(labels: ArrayLike, logits: ArrayLike, temperature: float) -> float:
    """Return the mean negative log likelihood of logits [N, C], C > 1, divided by a temperature, with Platt's targets.

    The class of an image has the probability 1 - 1 / (N + 2), the others share the rest: where all N images are told
    rightly, the next one need not be, and no temperature of 0 is the best.

    Source: Platt, Probabilistic outputs for support vector machines (1999), section 2.2, for any number of classes.
    """
    scores = log_softmax(np.asarray(logits, np.float64) / temperature, axis=1)
    own = scores[np.arange(len(scores)), np.asarray(labels)]
    doubt = 1 / (len(scores) + 2)
    others = (scores.sum(1) - own) / (scores.shape[1] - 1)
    return float(-((1 - doubt) * own + doubt * others).mean())


def fit_temperature(labels: ArrayLike, logits: ArrayLike) -> float:
    """Return the temperature, 0.001 to 1,000, of the least loss (see :func:`smoothed_loss`), which has one optimum.

    Source: Guo et al. (above), section 4.2.

    Args:
        labels: [N], class numbers.
        logits: [N, C], of at least two classes.
    """
    found = minimize_scalar(
        lambda log: smoothed_loss(labels, logits, float(np.exp(log))),
        bounds=(np.log(COLDEST), np.log(HOTTEST)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(np.exp(found.x))


def errors_by_chance(probabilities: ArrayLike) -> NDArray[np.float64]:
    """Return 200 ECEs of a classifier that is exactly as often right as it says, each on as many images, 0..1.

    Bins of few images are never right by exactly their share: the ECE of a sample is above 0 for the best classifier,
    and these say by how much. The share of them that is at least an observed ECE is the p-value of its being
    calibrated. Source: Broecker and Smith, Increasing the reliability of reliability diagrams (2007), consistency
    resampling.

    Args:
        probabilities: [N, C], each row sums to 1.
    """
    confidence = np.asarray(probabilities, np.float64).max(1)
    bins = _bins(confidence)
    right = np.random.default_rng(0).random((DRAWS, len(confidence))) < confidence
    gaps = [np.abs((right - confidence)[:, bins == number].sum(1)) for number in range(BINS)]
    return np.sum(gaps, 0) / len(confidence)


def error_interval(labels: ArrayLike, probabilities: ArrayLike) -> tuple[float, float]:
    """Return the 95 % interval of the ECE, each 0..1: what 200 draws of as many images, with repeats, have.

    Source: the percentile bootstrap, Efron and Tibshirani, An introduction to the bootstrap (1993), chapter 13. Few
    images make the ECE of a draw larger than that of all images, so the interval lies high rather than low.

    Args:
        labels: [N], class numbers.
        probabilities: [N, C], each row sums to 1.
    """
    scores = np.asarray(probabilities, np.float64)
    confidence = scores.max(1)
    excess = (scores.argmax(1) == np.asarray(labels)) - confidence
    times = np.random.default_rng(0).multinomial(len(excess), np.full(len(excess), 1 / len(excess)), DRAWS)
    gaps = [np.abs(times[:, own] @ excess[own]) for own in (_bins(confidence) == number for number in range(BINS))]
    low, high = np.quantile(np.sum(gaps, 0) / len(excess), (0.025, 0.975))
    return float(low), float(high)


def _bins(confidence: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)


@dataclass(frozen=True)
class Bin:
    """What a classifier says of the images that it is about as sure of, all 0..1.

    Attributes:
        confidence: mean probability of the predicted class.
        accuracy: share that is right.
        images: how many there are, at least one.
    """

    confidence: float
    accuracy: float
    images: int


def reliability(labels: ArrayLike, probabilities: ArrayLike) -> list[Bin]:
    """Return the bins of the ECE that hold images, from the least sure to the surest.

    Args:
        labels: [N], class numbers.
        probabilities: [N, C], each row sums to 1.
    """
    scores = np.asarray(probabilities, np.float64)
    confidence, right = scores.max(1), scores.argmax(1) == np.asarray(labels)
    bins = _bins(confidence)
    groups = [bins == number for number in range(BINS) if (bins == number).any()]
    return [Bin(float(confidence[own].mean()), float(right[own].mean()), int(own.sum())) for own in groups]
