"""What the model of each task of a run says of its test images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scripts.deploy.inference.loading import load_image_classifier
from scripts.imaging.decoding.reasons import ImageRefused
from scripts.learning.evaluation.report import evaluation_items
from scripts.learning.tasks.labels import require_one_class
from scripts.learning.tasks.record import read_tasks
from scripts.metrics.calibration import calibration_error, error_interval
from scripts.metrics.clinical import ClassRow, class_rows, confusion_matrix
from scripts.model.folder import TASK, task_numbers
from scripts.utils.files import DESCRIPTION

BATCH = 32


@dataclass(frozen=True)
class Answers:
    """What a model says of N images of the C classes that it knows.

    Attributes:
        task: the last that it has learnt.
        sizes: number of classes of each task.
        classes: their names.
        images: references.
        labels: class numbers [N].
        probabilities: [N, C].
        indeterminate: [N], whether the model withholds its answer.
        refused: test images that could not be read.
    """

    task: str
    sizes: tuple[int, ...]
    classes: tuple[str, ...]
    images: tuple[str, ...]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    indeterminate: NDArray[np.bool_]
    refused: int

    @property
    def predictions(self) -> NDArray[np.int64]:
        """The most probable classes [N], whether withheld or not."""
        return self.probabilities.argmax(1)

    @property
    def counts(self) -> NDArray[np.int64]:
        """The confusion matrix [C, C]."""
        return confusion_matrix(self.labels, self.predictions, len(self.classes))

    @property
    def rows(self) -> list[ClassRow]:
        """Sensitivity, specificity and AUROC of each class, with intervals."""
        return class_rows(self.labels, self.probabilities, self.classes)

    @property
    def calibration(self) -> dict[str, Any]:
        """The expected calibration error and its 95 % interval, 0..1."""
        low, high = error_interval(self.labels, self.probabilities)
        return {
            "task": self.task,
            "images": len(self.labels),
            "error": calibration_error(self.labels, self.probabilities),
            "low": low,
            "high": high,
            "withheld": float(self.indeterminate.mean()),
        }

    def mistakes(self, most: int) -> list[dict[str, Any]]:
        """Return the images that are given a wrong class with the highest probabilities, the surest first."""
        predictions = self.predictions
        wrong = np.flatnonzero(predictions != self.labels)
        surest = wrong[np.argsort(-self.probabilities[wrong, predictions[wrong]], kind="stable")][:most]
        return [
            {
                "image": self.images[number],
                "truth": self.classes[self.labels[number]],
                "said": self.classes[predictions[number]],
                "probability": float(self.probabilities[number, predictions[number]]),
                "withheld": bool(self.indeterminate[number]),
            }
            for number in surest
        ]


def answers_of(run: Path) -> list[Answers]:
    """Let the model of each task of a run classify the test images of the classes that it knows.

    Raises:
        UserError: when a model is damaged, or the test images of all tasks are gone.
    """
    numbers = [number for number in task_numbers(run) if (run / f"{TASK}{number}" / DESCRIPTION).is_file()]
    return [_answers(run, run / f"{TASK}{number}") for number in numbers]


def _answers(run: Path, folder: Path) -> Answers:
    classifier = load_image_classifier(folder)
    tasks: Sequence[Any] = classifier.trained.description["tasks"]
    classes = classifier.model.classes
    items = evaluation_items(read_tasks(run), len(classes))
    require_one_class(items, "the list of answers")
    said = classifier.classify_all([item["image"] for item in items], BATCH)
    pairs = [(item, one) for item, one in zip(items, said, strict=True) if not isinstance(one, ImageRefused)]
    return Answers(
        task=tasks[-1]["name"],
        sizes=tuple(len(task["classes"]) for task in tasks),
        classes=classes,
        images=tuple(str(item["image"]) for item, _ in pairs),
        labels=np.array([item["label"] for item, _ in pairs], np.int64),
        probabilities=np.array([[one.probabilities[name] for name in classes] for _, one in pairs]),
        indeterminate=np.array([one.indeterminate for _, one in pairs], bool),
        refused=len(items) - len(pairs),
    )
