"""What a trained model says of an image, and which model said it: the same words behind every door, the edge's too."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scripts.decoding.reasons import ImageRefused, Reason
from scripts.errors import UserError

DIGITS = 6
"""Digits behind the point that probabilities are given with: the same in JSON, CSV and reports."""


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
            no image is.

    Raises:
        UserError: for a temperature or threshold that means nothing.
    """

    name: str
    version: str
    weights_sha256: str
    classes: tuple[str, ...]
    temperature: float | None = None
    threshold: float | None = None

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
        return {name: getattr(self, name) for name in names}

    def judge(self, probabilities: Sequence[float]) -> Result:
        """Turn the network's probabilities [C], 0..1, into a result.

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
        return Result(
            model=self,
            predicted_class=self.classes[best],
            probabilities={name: round(float(value), DIGITS) for name, value in zip(self.classes, values, strict=True)},
            indeterminate=self.threshold is not None and bool(values[best] < self.threshold),
        )


@dataclass(frozen=True)
class Result:
    """What a model says of an image.

    Args:
        model: which one says it.
        predicted_class: the most probable class, also where the result is indeterminate.
        probabilities: by class, 0..1.
        indeterminate: no class is probable enough; see :class:`ModelIdentity`.
    """

    model: ModelIdentity
    predicted_class: str
    probabilities: Mapping[str, float]
    indeterminate: bool

    def record(self) -> dict[str, Any]:
        """Return it as JSON holds it, without the model."""
        return {
            "predicted_class": self.predicted_class,
            "indeterminate": self.indeterminate,
            "probabilities": dict(self.probabilities),
        }
