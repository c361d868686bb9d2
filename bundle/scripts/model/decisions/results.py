"""What a trained model says of an image, and which model said it: the same words behind every door, the edge's too."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from heapq import nlargest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scripts.imaging.decoding.reasons import ImageRefused, Reason
from scripts.model.decisions.outliers import OutlierRule
from scripts.utils.errors import UserError

DIGITS = 6
"""Digits behind the point that probabilities are given with: the same in JSON, CSV and reports."""


class Doubt(StrEnum):
    """Why a result is indeterminate."""

    OUTLIER = "outlier"
    """The image is unlike those that the model learnt from: its probabilities say nothing."""
    IMPROBABLE = "improbable"
    """No class is probable enough."""


@dataclass(frozen=True)
class ModelIdentity:
    """Which model it is, and how it decides; the same two files give the same identity.

    Args:
        name: ``<data>-<method>-<backbone>``, as its run is called.
        version: number in the store of versions; elsewhere ``task_<t>``, the last task learnt, from 0.
        weights_sha256: of the file with the weights.
        classes: names, in the order of the network's outputs.
        temperature: logits are divided by it; ``None``: they are taken as they are.
        threshold: the probability that the predicted class must have; below it the image is indeterminate. ``None``:
            no image is improbable.
        outliers: says which images are unlike those that were learnt from, which are indeterminate too; ``None``: no
            image is.

    Raises:
        UserError: for a temperature or threshold that means nothing.
    """

    name: str
    version: str
    weights_sha256: str
    classes: tuple[str, ...]
    temperature: float | None = None
    threshold: float | None = None
    outliers: OutlierRule | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.temperature is not None and not 0 < self.temperature < float("inf"):
            raise UserError(f"temperature is {self.temperature}: give a number above 0 (key 'temperature')")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise UserError(f"threshold is {self.threshold}: give a probability, 0 to 1 (key 'threshold')")

    @property
    def classes_sha256(self) -> str:
        """Hash of the class list: names and order."""
        return hashlib.sha256(json.dumps(self.classes).encode()).hexdigest()

    def record(self) -> dict[str, Any]:
        """Return what a file of results says of the model."""
        names = ("name", "version", "weights_sha256", "classes_sha256", "temperature", "threshold")
        said = {name: getattr(self, name) for name in names}
        return {**said, "outlier_threshold": None if self.outliers is None else self.outliers.threshold}

    def judge(self, probabilities: Sequence[float], image: NDArray[Any] | None = None) -> Result:
        """Turn the network's probabilities [C], 0..1, into a result.

        Args:
            probabilities: the softmax of its logits as they are.
            image: what it saw, [C, H, W] or [C, D, H, W]; ``None``: nobody asks whether it is an outlier.

        Raises:
            ImageRefused: when they are no numbers.
        """
        values = np.asarray(probabilities, np.float64)
        if not np.isfinite(values).all():
            raise ImageRefused(
                "the network's answer is no number: look for what is odd in the image", Reason.NON_FINITE
            )
        if self.temperature is not None:
            values = values ** (1 / self.temperature)  # the softmax of logits that are divided by it
            values /= values.sum()
        best = int(values.argmax())
        distance = None if self.outliers is None or image is None else self.outliers.distance(image)
        doubt = None
        if self.outliers is not None and distance is not None and distance > self.outliers.threshold:
            doubt = Doubt.OUTLIER
        elif self.threshold is not None and values[best] < self.threshold:
            doubt = Doubt.IMPROBABLE
        return Result(
            model=self,
            predicted_class=self.classes[best],
            probabilities={name: round(float(value), DIGITS) for name, value in zip(self.classes, values, strict=True)},
            doubt=doubt,
            distance=None if distance is None else round(distance, DIGITS),
        )


@dataclass(frozen=True)
class Result:
    """What a model says of an image.

    Args:
        model: which one says it.
        predicted_class: the most probable class, also where the result is indeterminate.
        probabilities: by class, 0..1.
        doubt: why it is indeterminate; ``None``: it is not.
        distance: of the image from those that the model learnt from; ``None``: the model does not say. See
            :class:`scripts.model.decisions.outliers.OutlierRule`.
    """

    model: ModelIdentity
    predicted_class: str
    probabilities: Mapping[str, float]
    doubt: Doubt | None = None
    distance: float | None = None

    @property
    def indeterminate(self) -> bool:
        """Whether the model does not know."""
        return self.doubt is not None

    @cached_property
    def lead(self) -> float:
        """How much more probable the likeliest class is than the next, 0..1; 1 where there is one class."""
        first, second = (*nlargest(2, self.probabilities.values()), 0.0)[:2]
        return first - second

    def record(self) -> dict[str, Any]:
        """Return it as JSON holds it, without the model."""
        return {
            "predicted_class": self.predicted_class,
            "indeterminate": self.indeterminate,
            "doubt": self.doubt,
            "distance": self.distance,
            "probabilities": dict(self.probabilities),
        }
