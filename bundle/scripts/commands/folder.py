"""What ``scripts.commands.classify`` does once it knows where: here is what takes seconds to import."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from scripts.commands.model import load_image_classifier
from scripts.errors import UserError
from scripts.files import DESCRIPTION
from scripts.inference.drift import DriftMonitor
from scripts.inference.folder import ResultFolder
from scripts.inference.images import find_images
from scripts.inference.saliency import make_saliency


def classify_folder(given: argparse.Namespace) -> tuple[int, int]:
    """Classify the images of a folder.

    Args:
        given: the options; see :func:`scripts.commands.classify.options`.

    Returns:
        How many images are classified, and how many refused.

    Raises:
        UserError: when the model is missing or of no use, there is no image, or the results cannot be written.
    """
    classifier = load_image_classifier(
        models_dir=model_folder(Path(given.models_dir)),
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
    return len(results.results), len(results.refusals)


def settings_of(pairs: Sequence[str]) -> dict[str, str]:
    """Return ``KEY=VALUE`` texts as settings.

    Raises:
        UserError: for a text without ``=``.
    """
    for pair in pairs:
        if "=" not in pair:
            raise UserError(f"'{pair}' is no setting: give KEY=VALUE, such as window=40,400 (--presentation)")
    return dict(pair.split("=", 1) for pair in pairs)


def model_folder(folder: Path) -> Path:
    """Return the folder with the model: this one, or the only one in it that has one, as MONAI Deploy lays it."""
    if (folder / DESCRIPTION).is_file():
        return folder
    within = [path.parent for path in sorted(folder.glob(f"*/{DESCRIPTION}"))]
    if len(within) > 1:
        names = ", ".join(path.name for path in within)
        raise UserError(f"{folder} holds several models: give one of {names} with its folder (--models_dir)")
    return within[0] if within else folder
