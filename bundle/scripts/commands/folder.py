"""What ``scripts.commands.classify`` does once it knows where: here is what takes seconds to import."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch

from scripts.commands.model import load_image_classifier
from scripts.errors import UserError
from scripts.inference.drift import DriftMonitor
from scripts.inference.folder import ResultFolder
from scripts.inference.images import find_images
from scripts.inference.model import model_folder, said_of
from scripts.inference.saliency import make_saliency


def classify_folder(given: argparse.Namespace) -> tuple[int, int, str]:
    """Classify the images of a folder.

    Args:
        given: the options; see :func:`scripts.commands.classify.options`.

    Returns:
        How many images are classified, how many refused, and by which model.

    Raises:
        UserError: when the model is missing or of no use, there is no image, or the results cannot be written.
    """
    model = model_folder(given.model)
    classifier = load_image_classifier(
        folder=model,
        presentation=settings_of(given.presentation),
        temperature=given.temperature,
        threshold=given.threshold,
        device=given.device or ("cuda" if torch.cuda.is_available() else "cpu"),
        workers=given.workers,
    )
    items = find_images(given.input, classifier.suffixes, classifier.presentation)
    if not items:
        names = ", ".join(classifier.suffixes)
        raise UserError(f"input folder {given.input} has no images: put some there ({names}, DICOM, NIfTI)")
    saliency = make_saliency(given.saliency, classifier.network, classifier.prepare)
    drift = DriftMonitor(given.drift_images, given.drift_level)
    results = ResultFolder(given.output, lambda: classifier.model, saliency, drift)
    results.start()
    said = classifier.classify_all([item["image"] for item in items], given.batch_size)
    for item, result in zip(items, said, strict=True):
        results.put(item["name"], item["image"], result)
    results.finish()
    return len(results.results), len(results.refusals), said_of(model)


def settings_of(pairs: Sequence[str]) -> dict[str, str]:
    """Return ``KEY=VALUE`` texts as settings.

    Raises:
        UserError: for a text without ``=``.
    """
    for pair in pairs:
        if "=" not in pair:
            raise UserError(f"'{pair}' is no setting: give KEY=VALUE, such as window=40,400 (--presentation)")
    return dict(pair.split("=", 1) for pair in pairs)
