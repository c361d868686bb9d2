"""What ``scripts.commands.classify`` does once it knows where: here is what takes seconds to import."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch

from scripts.commands.classify import TASK, Order
from scripts.commands.key_table import is_expression
from scripts.deploy.inference.drift import DriftMonitor
from scripts.deploy.inference.folder import ResultFolder
from scripts.deploy.inference.images import find_images
from scripts.deploy.inference.loading import load_image_classifier
from scripts.deploy.inference.saliency import make_saliency
from scripts.imaging.decoding.kinds import PICTURES
from scripts.model.decisions.results import NO_FINDING, Result
from scripts.utils.errors import UserError


def classify_folder(order: Order) -> tuple[int, int, str]:
    """Classify the images of a folder.

    Returns:
        How many images are classified, how many refused, and by which model.

    Raises:
        UserError: when the model is missing or of no use, there is no image, or the results cannot be written.
    """
    (model, images, output), settings = order.places, order.settings()
    device = settings["device"]
    classifier = load_image_classifier(
        folder=model,
        presentation=settings["presentation"],
        temperature=settings["temperature"],
        threshold=settings["threshold"],
        device=("cuda" if torch.cuda.is_available() else "cpu") if is_expression(device) else device,
        workers=order.workers,
    )
    items = [item for item in find_images(images, classifier.presentation) if item["name"] != TASK]
    if not items:
        names = ", ".join(PICTURES)
        raise UserError(f"image folder {images} has no images: put some there ({names}, DICOM, NIfTI)")
    saliency = make_saliency(settings["saliency"], classifier.network, classifier.prepare)
    drift = DriftMonitor(settings["drift_images"], settings["drift_level"])
    results = ResultFolder(output, classifier.model, saliency, drift, settings["codes"])
    results.start()
    judged = classifier.classify_all([item["image"] for item in items], settings["batch_size"])
    for item, result in zip(items, judged, strict=True):
        results.put(item["name"], item["image"], result)
    results.finish()
    said = f"{counted_findings(list(results.results.values()))}\n" if classifier.model.thresholds is not None else ""
    return len(results.results), len(results.refusals), f"{said}{classifier.trained}"


def counted_findings(results: Sequence[Result]) -> str:
    """Say in a line in how many images each finding is, and how many have none."""
    counts = Counter(
        name
        for result in results
        for name in (("indeterminate",) if result.indeterminate else result.findings or (NO_FINDING,))
    )
    return f"Findings: {', '.join(f'{name} in {count}' for name, count in sorted(counts.items())) or 'no image'}"
