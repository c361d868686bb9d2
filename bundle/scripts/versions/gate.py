"""Say whether a version may replace another: it must not have forgotten, and must be good enough."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap

from scripts.errors import UserError
from scripts.json_files import TEXT, read_json
from scripts.metrics.accuracy_matrix import mean_class_recall
from scripts.versions.store import ADVICE, Version

ANSWERS = "answers.json"
RESAMPLES = 9999

Answers = Mapping[str, tuple[str, str]]
"""What a version says of its test images: of each image's key, the class that it is of and the class predicted."""

SCHEMA = {"type": "object", "additionalProperties": {"type": "array", "minItems": 2, "maxItems": 2, "items": TEXT}}
"""The same as a JSON schema."""


@dataclass(frozen=True)
class Loss:
    """How much mean class recall a version has lost on the classes that another knew, in 0..1; below 0: gained.

    Attributes:
        estimate: on the test images themselves.
        low: of the bootstrap's interval.
        high: of the same.
        images: how many were compared.
    """

    estimate: float
    low: float
    high: float
    images: int

    def __str__(self) -> str:
        """Say it in percentage points."""
        return (
            f"{100 * self.estimate:.1f} points of recall on {self.images} images of the old classes "
            f"(95 % interval {100 * self.low:.1f} to {100 * self.high:.1f})"
        )


@dataclass(frozen=True)
class Gate:
    """What a version is asked to pass.

    Args:
        margin: mean class recall that the classes of the promoted version may lose at most, 0..1: the upper end of the
            paired bootstrap's 95 % interval must not be above it (non-inferiority).
        floor: mean class recall over all its classes that a version must reach, 0..1.

    Raises:
        UserError: for a number outside 0..1.
    """

    margin: float = 0.02
    floor: float = 0.0

    def __post_init__(self) -> None:
        """Check the values."""
        for name in ("margin", "floor"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise UserError(f"{name} is {value}: give a number from 0 to 1 ({name})")

    def objections(self, candidate: Answers, promoted: Answers | None) -> list[str]:
        """Return why a version may not be promoted; nothing: it may.

        Args:
            candidate: what it says of its test images.
            promoted: what the version that is promoted now says of its own; ``None``: there is none.
        """
        found = []
        reached = recall(candidate)
        if reached < self.floor:
            found.append(f"its mean class recall is {100 * reached:.1f} %, under the floor of {100 * self.floor:.1f} %")
        if promoted is not None:
            loss = forgotten(candidate, promoted)
            if loss is None:
                found.append("no test image of the old classes is left to compare both versions on")
            elif loss.high > self.margin:
                found.append(f"it may have lost {loss}; at most {100 * self.margin:.1f} are allowed")
        return found


def answers_of(version: Version) -> Answers:
    """Return what a version says of its test images."""
    answers: Answers = read_json(version.folder / ANSWERS, SCHEMA, ADVICE)
    return answers


def recall(answers: Answers) -> float:
    """Return mean class recall, 0..1; 0 without images."""
    names = sorted({name for pair in answers.values() for name in pair})
    labels, predictions = ([names.index(pair[side]) for pair in answers.values()] for side in (0, 1))
    return (mean_class_recall(labels, predictions) or 0.0) if answers else 0.0


def forgotten(candidate: Answers, promoted: Answers) -> Loss | None:
    """Compare two versions on the test images that both have been tested on.

    The interval is that of the percentile bootstrap (Efron and Tibshirani, An introduction to the bootstrap, 1993,
    chapter 13), in which images are drawn anew within each class, each with what both versions say of it.

    Returns:
        The loss; ``None`` where they have no image in common.
    """
    classes: dict[str, list[float]] = {}
    for key, (label, before) in promoted.items():
        if key in candidate and candidate[key][0] == label:
            classes.setdefault(label, []).append(float(before == label) - float(candidate[key][1] == label))
    if not classes:
        return None
    differences = [np.array(values) for _, values in sorted(classes.items())]
    estimate = _mean_of_means(*differences)
    low, high = _interval(differences)
    return Loss(float(estimate), low, high, sum(map(len, differences)))


def _interval(differences: list[NDArray[np.float64]]) -> tuple[float, float]:
    # a sample of one is its own only resample, which SciPy refuses: twice the same says as little
    samples = [np.repeat(values, 2) if len(values) == 1 else values for values in differences]
    drawn = bootstrap(samples, _mean_of_means, n_resamples=RESAMPLES, method="percentile", rng=np.random.default_rng(0))
    return float(drawn.confidence_interval.low), float(drawn.confidence_interval.high)


def _mean_of_means(*samples: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
    return np.mean([sample.mean(axis) for sample in samples], 0)
