"""From a trained model's folder to what answers: the same object behind every door."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.deploy.inference.classification import ImageClassifier
from scripts.deploy.inference.saliency import Saliency, make_saliency
from scripts.model.folder import TrainedModel


def load_image_classifier(
    folder: str | Path,
    presentation: Mapping[str, Any] | None = None,
    temperature: float | None = None,
    threshold: float | None = None,
    device: str = "cpu",
    workers: int = 1,
) -> ImageClassifier:
    """Load a trained model.

    Args:
        folder: see :meth:`scripts.model.folder.TrainedModel.open`, as of the temperature and the threshold.
        presentation: see :class:`scripts.deploy.inference.ImageClassifier`, as of all others.
        temperature: of the softmax.
        threshold: of the predicted class.
        device: where the network computes.
        workers: images that are read at the same time.

    Raises:
        UserError: as both.
    """
    trained = TrainedModel.open(folder, temperature=temperature, threshold=threshold)
    return ImageClassifier(trained, presentation, device, workers)


def load_reporting(
    folder: str | Path, saliency: str | None = None, **settings: Any
) -> tuple[ImageClassifier, Saliency | None]:
    """Load a trained model, and what draws where it looks.

    Args:
        folder: as of :func:`load_image_classifier`.
        saliency: see :func:`scripts.deploy.inference.make_saliency`.
        settings: of :func:`load_image_classifier`.

    Raises:
        UserError: as both.
    """
    classifier = load_image_classifier(folder, **settings)
    return classifier, make_saliency(saliency, classifier.network, classifier.prepare)
