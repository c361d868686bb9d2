"""Whether an image is like those that a model learnt from: statistics of the image itself, and how far they lie off.

Only sums over images are needed, which do not change when the network does: what was counted of a task stays right
after later ones, with any method, whether its images are kept or not. NumPy alone, so that every door, the edge's too,
computes the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scripts.utils.errors import UserError

SCALES = 4
SMALLEST = 1e-6
"""Added to variances before their logarithm is taken: black images have one."""
REFERENCE = 500
"""Distances that are kept to compare those of later images with, at most."""

Numbers = NDArray[np.float64]


def image_statistics(image: NDArray[Any]) -> Numbers:
    """Describe colour and texture of an image.

    Mean and log deviation of each channel, correlations between channels, and at 4 scales, each half as large as the
    one before, the log RMS difference between neighbours in each channel and, over all channels, their mean absolute
    difference as a share of the RMS (small: a few edges in a smooth image).

    Args:
        image: as the network sees it, [C, H, W] or [C, D, H, W].

    Returns:
        [S]: 25 numbers of a colour image, 10 of a channel.
    """
    pixels = np.asarray(image, np.float32)
    flat = pixels.reshape(len(pixels), -1).astype(np.float64)
    covariance = np.atleast_2d(np.cov(flat, bias=True)) + SMALLEST * np.eye(len(flat))
    deviation = np.sqrt(np.diag(covariance))
    pairs = np.triu_indices(len(flat), 1)
    found = [flat.mean(1), np.log(deviation), (covariance / np.outer(deviation, deviation))[pairs]]
    for _ in range(SCALES):
        steps = [np.diff(pixels, axis=axis) for axis in range(1, pixels.ndim) if pixels.shape[axis] > 1]
        squares = np.mean([_mean(step * step) for step in steps] or [np.zeros(len(pixels))], 0)
        absolute = np.mean([_mean(np.abs(step)) for step in steps] or [np.zeros(len(pixels))])
        root = np.sqrt(SMALLEST + squares)
        found += [np.log(root), np.array([absolute / root.mean()])]
        pixels = _halved(pixels)
    return np.concatenate(found)


def _mean(values: NDArray[np.float32]) -> Numbers:
    """Return the mean of each channel."""
    return values.reshape(len(values), -1).mean(1, dtype=np.float64)


def _halved(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Average pairs of neighbours along every axis; an odd last one is left out, an axis of one stays."""
    for axis in range(1, pixels.ndim):
        pairs = np.moveaxis(pixels, axis, -1)
        length = pairs.shape[-1] // 2 * 2
        if length:
            pairs = (pairs[..., :length:2] + pairs[..., 1:length:2]) * np.float32(0.5)
            pixels = np.moveaxis(pairs, -1, axis)
    return pixels


class StatisticsSums:
    """What is kept of the images of each class: how many there are, and the sums that mean and covariance need."""

    def __init__(self) -> None:
        self.sums: dict[int, tuple[int, Numbers, Numbers]] = {}

    def count(self, label: int, statistics: Numbers) -> None:
        """Set what is kept of a class.

        Args:
            label: the class.
            statistics: of all its images, [N, S].
        """
        self.sums[label] = (len(statistics), statistics.sum(0), statistics.T @ statistics)

    def fitted(self) -> tuple[Numbers, Numbers]:
        """Return the classes' means [C, S] and the inverse of the covariance [S, S] that they share.

        Source: Lee et al., A simple unified framework for detecting out-of-distribution samples and adversarial attacks
        (NeurIPS 2018), equation 1; here the features are :func:`image_statistics`, and the covariance is drawn to its
        diagonal, the more so the fewer images there are for its S numbers a row: by S / (S + N).
        """
        counts, sums, squares = (np.array(part) for part in zip(*self.sums.values(), strict=True))
        means = sums / counts[:, None]
        scatter = squares.sum(0) - np.einsum("c,ci,cj->ij", counts, means, means)
        covariance = scatter / counts.sum()
        own = np.diag(np.diag(covariance) + SMALLEST)
        share = len(own) / (len(own) + counts.sum())
        return means, np.linalg.inv((1 - share) * covariance + share * own)

    def state_dict(self) -> dict[int, list[Any]]:
        """Return plain values, for a checkpoint that is loaded with ``weights_only``."""
        return {label: [count, part.tolist(), square.tolist()] for label, (count, part, square) in self.sums.items()}

    def load_state_dict(self, state: Mapping[int, Sequence[Any]]) -> None:
        """Take over what :meth:`state_dict` returned."""
        self.sums = {label: (count, np.array(part), np.array(square)) for label, (count, part, square) in state.items()}


@dataclass(frozen=True, eq=False)
class OutlierRule:
    """Says how far an image lies from those that were learnt from, and from which distance on it is an outlier.

    Attributes:
        means: of each class, [C, S].
        precision: inverse of the classes' common covariance, [S, S].
        threshold: the distance above which an image is an outlier.
        reference: distances of images like those that the model is for, in rising order.
    """

    means: Numbers
    precision: Numbers
    threshold: float
    reference: tuple[float, ...]

    def distance(self, image: NDArray[Any]) -> float:
        """Return the Mahalanobis distance to the nearest class mean of an image [C, H, W] as the network sees it."""
        return float(distances(image_statistics(image)[None], self.means, self.precision)[0])

    def record(self) -> dict[str, Any]:
        """Return what a file with the model says of it: numbers about all images, none about one."""
        arrays = {"means": self.means.tolist(), "precision": self.precision.tolist()}
        return {"threshold": self.threshold, "reference": list(self.reference), **arrays}

    @classmethod
    def read(cls, record: Mapping[str, Any] | None) -> OutlierRule | None:
        """Return the rule of a record; ``None`` where there is none.

        Raises:
            UserError: when it cannot be used.
        """
        if record is None:
            return None
        try:
            means, precision, reference = (
                np.array(record[name], np.float64) for name in ("means", "precision", "reference")
            )
            rule = cls(means, precision, float(record["threshold"]), tuple(map(float, reference)))
        except (KeyError, TypeError, ValueError) as error:
            raise unusable(repr(error)) from error
        if means.ndim != 2 or precision.shape != (means.shape[1],) * 2 or not len(means):
            raise unusable(f"means are {list(means.shape)}, precision is {list(precision.shape)}")
        if not (np.isfinite(means).all() and np.isfinite(precision).all()):
            raise unusable("it holds what is no number")
        return rule


def unusable(reason: str) -> UserError:
    """Return the error to raise for a rule that cannot be used."""
    return UserError(f"what the model says of outliers cannot be used ({reason}): restore network.json, or train again")


def distances(statistics: Numbers, means: Numbers, precision: Numbers) -> Numbers:
    """Return the Mahalanobis distance of each image's statistics [N, S] to the nearest of the means [C, S], [N]."""
    offsets = statistics[:, None] - means
    return np.sqrt(np.einsum("nci,ij,ncj->nc", offsets, precision, offsets).min(1).clip(0))


def make_rule(sums: StatisticsSums, typical: Numbers, acceptance: float) -> OutlierRule:
    """Make the rule that accepts a share of the images like those the model is for.

    Args:
        sums: of the images learnt from.
        typical: statistics [N, S] of other images of the same kind.
        acceptance: share of them that are no outliers, in (0, 1].
    """
    means, precision = sums.fitted()
    found = np.sort(distances(typical, means, precision))
    kept = found if len(found) <= REFERENCE else np.quantile(found, np.linspace(0, 1, REFERENCE))
    threshold = float(np.quantile(found, acceptance, method="higher"))
    return OutlierRule(means, precision, threshold, tuple(round(float(value), 4) for value in kept))
