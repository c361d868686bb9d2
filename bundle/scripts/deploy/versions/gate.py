"""Say whether a version may replace another: no class may have lost much, and each must be good enough.

A gate is a function: from what two versions say of the test images of each class to a verdict with its reasons. What it
lets pass is shown, not merely not refuted: each reason rests on a confidence bound, so a class with few images does not
pass.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, bootstrap

from scripts.deploy.versions.store import ADVICE, Version
from scripts.utils.errors import UserError
from scripts.utils.json_files import TEXT, JsonFiles

ANSWERS = "answers.json"
LEVEL = 0.05
"""Chance that a verdict lets a version pass of which any class has lost more than it may, at most."""
LOST_SHARE = 0.8
"""Of a class's level, what is spent on the images that were lost; the rest goes to those that were gained."""
RESAMPLES = 9999
MOST_IMAGES = 100_000
TINY = 1e-9  # a bound may miss its own number by rounding

Answers = Mapping[str, tuple[str, str]]
"""What a version says of its test images: of each image's key, the class that it is of and the class predicted."""

SCHEMA = {"type": "object", "additionalProperties": {"type": "array", "minItems": 2, "maxItems": 2, "items": TEXT}}
"""The same as a JSON schema."""
_ANSWERS = JsonFiles(SCHEMA, ADVICE, most=8)


@dataclass(frozen=True)
class OldClass:
    """The test images of a class that both versions know and have been tested on.

    Attributes:
        images: how many there are.
        lost: those that the promoted version tells and the candidate does not.
        gained: the other way round.
        told: those that the promoted version tells.
    """

    images: int
    lost: int
    gained: int
    told: int = 0

    @property
    def loss(self) -> float:
        """Recall lost, -1..1; below 0: gained."""
        return (self.lost - self.gained) / self.images if self.images else 0.0

    def like(self, images: int) -> OldClass:
        """Return so many images of which the same shares were lost and gained."""
        scale = images / self.images if self.images else 0.0
        return OldClass(images, round(scale * self.lost), round(scale * self.gained))

    def bound(self, level: float) -> float:
        """Return the upper bound of the loss, -1..1, that is too low with a chance of at most ``level``.

        The exact one-sided bounds (Clopper and Pearson, Biometrika 26, 1934) of the share that was lost and of the
        share that was gained, joined by Bonferroni's inequality. They hold for any number of images, also where
        nothing was lost, which a bootstrap or a normal approximation takes for certainty.
        """
        if not self.images:
            return 1.0
        most = binomtest(self.lost, self.images, alternative="less").proportion_ci(1 - LOST_SHARE * level).high
        least = binomtest(self.gained, self.images, alternative="greater").proportion_ci(1 - (1 - LOST_SHARE) * level)
        return float(most - least.low)


@dataclass(frozen=True)
class NewClass:
    """The test images of a class that the promoted version does not know, or of any where none is promoted.

    Attributes:
        images: how many there are.
        right: those that the candidate tells.
    """

    images: int
    right: int

    @property
    def recall(self) -> float:
        """The share that is told, 0..1."""
        return self.right / self.images if self.images else 0.0

    def like(self, images: int) -> NewClass:
        """Return so many images of which the same share is told, all where there are none yet."""
        return NewClass(images, round(images * self.recall) if self.images else images)

    def bound(self, level: float) -> float:
        """Return the exact lower bound of the recall, 0..1; see :meth:`OldClass.bound`."""
        if not self.images:
            return 0.0
        return float(binomtest(self.right, self.images, alternative="greater").proportion_ci(1 - level).low)


class Measure(StrEnum):
    """What a gate holds against a limit."""

    CLASS_LOSS = "class_loss"
    CLASS_RECALL = "class_recall"
    MEAN_LOSS = "mean_loss"
    MEAN_RECALL = "mean_recall"


@dataclass(frozen=True)
class Objection:
    """Why a version does not pass.

    Attributes:
        measure: what is too high or too low.
        bound: how much it is, 0..1.
        limit: what it may be at most or must be at least.
        reason: one line, with the class where it is of one.
        decided: ``False`` where there are too few test images to show anything: a person may answer for the version.
        of: the class, where it is of one.
    """

    measure: Measure
    bound: float
    limit: float
    reason: str
    decided: bool = True
    of: str | None = None


@dataclass(frozen=True)
class Gate:
    """What a version is asked to pass. All are recalls, 0..1.

    Args:
        class_margin: what any class that the promoted version knows may lose: the bound of each is at most this.
        mean_margin: what their mean may lose: the end of the bootstrap's one-sided 95 % interval is at most this.
        class_floor: what any class that is new, or of a first version, reaches: the bound of each is at least this.
        mean_floor: what the mean over all classes of the version reaches on its test images.

    Raises:
        UserError: for a number outside 0..1.
    """

    class_margin: float
    mean_margin: float
    class_floor: float
    mean_floor: float

    def __post_init__(self) -> None:
        """Check the values."""
        for name in (field.name for field in fields(self)):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise UserError(f"{name} is {value}: give a number from 0 to 1 ({name})")

    def objections(
        self, old: Mapping[str, OldClass], new: Mapping[str, NewClass], recalls: Sequence[float]
    ) -> list[Objection]:
        """Return why a version may not be promoted; nothing: it may.

        The level is divided by the number of classes (Bonferroni), so that all bounds hold at once and each can be
        read by itself; Holm's procedure would refuse a little less, but leaves no bound to show.

        Args:
            old: by name, the classes of the version that is promoted now; empty where there is none.
            new: the candidate's other classes.
            recalls: the candidate's, of every class that it has test images of.
        """
        level = LEVEL / max(len(old) + len(new), 1)
        found = [self._lost(name, own, level) for name, own in old.items()]
        found += [self._too_low(name, own, level) for name, own in new.items()]
        return [objection for objection in (*found, self._mean_lost(old), self._mean_too_low(recalls)) if objection]

    def _lost(self, name: str, own: OldClass, level: float) -> Objection | None:
        bound = own.bound(level)
        if bound <= self.class_margin + TINY:
            return None
        said = (
            f"{name}: it may have lost {_points(bound)} points of recall ({_points(own.loss)} on its {own.images} test "
            f"images), more than {_points(self.class_margin)}"
        )
        measured = (Measure.CLASS_LOSS, bound, self.class_margin)
        if own.loss > self.class_margin:
            return Objection(*measured, said, of=name)
        shown = _would_decide(lambda images: own.like(images).bound(level) <= self.class_margin + TINY)
        return Objection(*measured, f"{said}; {shown}", decided=False, of=name)

    def _too_low(self, name: str, own: NewClass, level: float) -> Objection | None:
        bound = own.bound(level)
        if bound >= self.class_floor - TINY:
            return None
        said = (
            f"{name}: its recall may be {_points(bound)} % ({_points(own.recall)} % of its {own.images} test images), "
            f"under the floor of {_points(self.class_floor)} %"
        )
        measured = (Measure.CLASS_RECALL, bound, self.class_floor)
        if own.images and own.recall < self.class_floor:
            return Objection(*measured, said, of=name)
        shown = _would_decide(lambda images: own.like(images).bound(level) >= self.class_floor - TINY)
        return Objection(*measured, f"{said}; {shown}", decided=False, of=name)

    def _mean_lost(self, old: Mapping[str, OldClass]) -> Objection | None:
        tested = [own for own in old.values() if own.images]
        if not tested:
            return None
        bound, loss = mean_bound(tested), float(np.mean([own.loss for own in tested]))
        if bound <= self.mean_margin + TINY:
            return None
        return Objection(
            Measure.MEAN_LOSS,
            bound,
            self.mean_margin,
            f"mean: it may have lost {_points(bound)} points of recall ({_points(loss)} on "
            f"{sum(own.images for own in tested)} test images), more than {_points(self.mean_margin)}",
            decided=loss > self.mean_margin,
        )

    def _mean_too_low(self, recalls: Sequence[float]) -> Objection | None:
        reached = float(np.mean(recalls)) if recalls else 0.0
        if reached >= self.mean_floor - TINY:
            return None
        return Objection(
            Measure.MEAN_RECALL,
            reached,
            self.mean_floor,
            f"mean: its recall is {_points(reached)} %, under the floor of {_points(self.mean_floor)} %",
            decided=bool(recalls),
        )


def images_needed(shows: Callable[[int], bool]) -> int | None:
    """Return how many test images are enough, at most :data:`MOST_IMAGES`; ``None``: no number is.

    Args:
        shows: whether so many are; of more, more is shown.
    """
    found = bisect_left(range(MOST_IMAGES + 1), True, key=shows)
    return found if found <= MOST_IMAGES else None


def _would_decide(shows: Callable[[int], bool]) -> str:
    needed = images_needed(shows)
    return f"{'no number of' if needed is None else needed} such images would decide"


def mean_bound(classes: Sequence[OldClass]) -> float:
    """Return the upper end of the one-sided 95 % interval of the mean loss of classes, -1..1.

    That of the paired percentile bootstrap (Efron and Tibshirani, An introduction to the bootstrap, 1993, chapter 13),
    in which images are drawn anew within each class, each with what both versions say of it.
    """
    samples = [
        np.repeat([1.0, -1.0, 0.0], [own.lost, own.gained, own.images - own.lost - own.gained]) for own in classes
    ]
    # a sample of one is its own only resample, which SciPy refuses: twice the same says as little
    samples = [np.repeat(values, 2) if len(values) == 1 else values for values in samples]
    drawn = bootstrap(
        samples,
        _mean_of_means,
        n_resamples=RESAMPLES,
        confidence_level=1 - LEVEL,
        alternative="less",
        method="percentile",
        rng=np.random.default_rng(0),
    )
    return float(drawn.confidence_interval.high)


def _mean_of_means(*samples: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
    return np.mean([sample.mean(axis) for sample in samples], 0)


def _points(share: float) -> str:
    return f"{100 * share:.1f}"


@dataclass(frozen=True)
class Comparison:
    """What two versions say of the test images, counted.

    Attributes:
        old: by name, the classes of the version before; empty where there is none.
        new: the candidate's other classes.
        recalls: the candidate's, of every class that it has test images of.
    """

    old: Mapping[str, OldClass]
    new: Mapping[str, NewClass]
    recalls: Sequence[float]


def compare(candidate: Version, before: Version | None) -> Comparison:
    """Compare a version with another, on the test images that both were tested on."""
    said = answers_of(candidate)
    earlier = {} if before is None else answers_of(before)
    known = [] if before is None else before.classes
    old = {name: _compared(name, said, earlier) for name in known}
    right = {name: [told == label for label, told in said.values() if label == name] for name in candidate.classes}
    new = {name: NewClass(len(own), sum(own)) for name, own in right.items() if name not in old}
    return Comparison(old, new, [sum(own) / len(own) for own in right.values() if own])


def judge(gate: Gate, candidate: Version, promoted: Version | None) -> list[Objection]:
    """Return what a gate objects to a version, on the test images that it and the promoted one were tested on."""
    found = compare(candidate, promoted)
    return gate.objections(found.old, found.new, found.recalls)


def answers_of(version: Version) -> Answers:
    """Return what a version says of its test images."""
    answers: Answers = _ANSWERS(version.folder / ANSWERS)
    return answers


def _compared(name: str, candidate: Answers, promoted: Answers) -> OldClass:
    """Compare two versions on the test images of a class that both have been tested on."""
    both = [
        (told == name, candidate[key][1] == name)
        for key, (label, told) in promoted.items()
        if label == name and candidate.get(key, ("",))[0] == name
    ]
    told = sum(before for before, _ in both)
    return OldClass(len(both), both.count((True, False)), both.count((False, True)), told)
