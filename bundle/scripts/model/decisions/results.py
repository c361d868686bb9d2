"""What a trained model says of an image, and which model said it: the same words behind every door, the edge's too."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from heapq import nlargest
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scripts.imaging.decoding.reasons import ImageRefused, Reason
from scripts.model.decisions.outliers import OutlierRule
from scripts.utils.errors import UserError

FINDINGS, NO_FINDING = "|", "none"
"""What stands between the names of several findings in one text, and what stands for none."""

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
        thresholds: of findings, of which an image may carry several: from which score on each is present; ``None``:
            the classes exclude each other.

    Raises:
        UserError: for a temperature or thresholds that mean nothing.
    """

    name: str
    version: str
    weights_sha256: str
    classes: tuple[str, ...]
    temperature: float | None = None
    threshold: float | None = None
    outliers: OutlierRule | None = field(default=None, compare=False, repr=False)
    thresholds: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.temperature is not None and not 0 < self.temperature < float("inf"):
            raise UserError(f"temperature is {self.temperature}: give a number above 0 (key 'temperature')")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise UserError(f"threshold is {self.threshold}: give a probability, 0 to 1 (key 'threshold')")
        if self.thresholds is not None and (self.temperature, self.threshold) != (None, None):
            raise UserError(
                "each finding of this model has a threshold of its own: leave temperature and threshold out"
            )
        if self.thresholds is not None and len(self.thresholds) != len(self.classes):
            raise UserError(f"{len(self.thresholds)} thresholds do not fit {len(self.classes)} findings: train again")

    @property
    def classes_sha256(self) -> str:
        """Hash of the class list: names and order."""
        return hashlib.sha256(json.dumps(self.classes).encode()).hexdigest()

    def record(self) -> dict[str, Any]:
        """Return what a file of results says of the model."""
        names = ("name", "version", "weights_sha256", "classes_sha256", "temperature", "threshold")
        said = {name: getattr(self, name) for name in names}
        said["outlier_threshold"] = None if self.outliers is None else self.outliers.threshold
        if self.thresholds is not None:
            said["thresholds"] = dict(zip(self.classes, self.thresholds, strict=True))
        return said

    def probabilities(self, logits: ArrayLike) -> NDArray[np.float32]:
        """Turn what the network gives, [..., C], into probabilities: the softmax.

        Of findings, into the score of each: what ridge regression says, cut off at 0 and 1.
        """
        values = np.asarray(logits, np.float64)
        if self.thresholds is not None:
            return values.clip(0, 1).astype(np.float32)
        powers = np.exp(values - values.max(-1, keepdims=True))
        return (powers / powers.sum(-1, keepdims=True)).astype(np.float32)

    def judge(self, probabilities: ArrayLike, image: NDArray[Any] | None = None) -> Result:
        """Turn the network's probabilities [C], 0..1, into a result.

        Args:
            probabilities: as :meth:`probabilities` has them.
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
        findings = None
        if self.thresholds is not None:
            pairs = zip(self.classes, values >= np.array(self.thresholds), strict=True)
            findings = tuple(name for name, present in pairs if present)
        distance = None if self.outliers is None or image is None else self.outliers.distance(image)
        doubt = None
        if self.outliers is not None and distance is not None and distance > self.outliers.threshold:
            doubt = Doubt.OUTLIER
        elif self.threshold is not None and values[best] < self.threshold:
            doubt = Doubt.IMPROBABLE
        return Result(
            model=self,
            predicted_class=self.classes[best],
            findings=findings,
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
        probabilities: by class, 0..1; of findings, of which an image may carry several, the score of each.
        findings: those that are present; ``None``: the classes exclude each other.
        doubt: why it is indeterminate; ``None``: it is not.
        distance: of the image from those that the model learnt from; ``None``: the model does not say. See
            :class:`scripts.model.decisions.outliers.OutlierRule`.
    """

    model: ModelIdentity
    predicted_class: str
    probabilities: Mapping[str, float]
    doubt: Doubt | None = None
    distance: float | None = None
    findings: tuple[str, ...] | None = None

    @property
    def said(self) -> str:
        """What is said of the image in one text: its class, or its findings."""
        return self.predicted_class if self.findings is None else FINDINGS.join(self.findings) or NO_FINDING

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
        findings = {} if self.findings is None else {"findings": list(self.findings)}
        return {
            "predicted_class": self.said,
            "indeterminate": self.indeterminate,
            "doubt": self.doubt,
            "distance": self.distance,
            "probabilities": dict(self.probabilities),
            **findings,
        }
