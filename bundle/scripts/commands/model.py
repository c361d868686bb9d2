"""Build what classifies images from a trained model's folder: the same object behind every door."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from scripts.commands.configs import TRAIN, VOLUMES
from scripts.files import DESCRIPTION
from scripts.inference.classification import ImageClassifier
from scripts.inference.model import load_classifier
from scripts.inference.results import identify
from scripts.inference.saliency import Saliency, make_saliency
from scripts.networks.backbones import spatial_dims
from scripts.networks.classifier import read_description


def training_config(settings: Mapping[str, Any]) -> ConfigParser:
    """Return the training's config with what decides how a trained model sees an image.

    Args:
        settings: ``network.json`` or what else holds ``backbone``, ``image_size``, ``mean``, ``std`` and
            ``colour_transform``.
    """
    parser = ConfigParser()
    volumes = [VOLUMES] if spatial_dims(settings["backbone"]) == 3 else []
    parser.read_config([str(path) for path in (TRAIN, *volumes)])
    seen = {name: settings.get(name) for name in ("mean", "std", "colour_transform")}  # no more: others may be code
    image = {"size": settings["image_size"], **seen, "presentation": None}
    parser.update({"backbone": settings["backbone"], "image": image})
    return parser


def load_image_classifier(
    folder: str | Path,
    presentation: Mapping[str, Any] | None = None,
    temperature: float | None = None,
    threshold: float | None = None,
    device: str = "cpu",
    workers: int = 1,
) -> ImageClassifier:
    """Load a trained model with the preprocessing that it was trained with.

    Args:
        folder: a run's folder, one of its ``task_<t>``, or ``models``.
        presentation: over that of training, a setting at a time; see :func:`scripts.transforms.make_selection`.
        temperature: see :class:`scripts.inference.ModelIdentity`.
        threshold: as the temperature.
        device: where the network computes.
        workers: images that are read at the same time.

    Raises:
        UserError: when the folder holds no model that can be used, or a setting means nothing.
    """
    description = read_description(str(Path(folder) / DESCRIPTION))
    config = training_config(description)
    return ImageClassifier(
        network=load_classifier(folder),
        prepare=config.get_parsed_content("validate#preprocessing"),
        model=identify(folder, temperature, threshold),
        presentation={**(description.get("presentation") or {}), **(presentation or {})},
        suffixes=config.get_parsed_content("reader").suffixes,
        device=device,
        workers=workers,
    )


def load_reporting(
    folder: str | Path, saliency: str | None = None, **settings: Any
) -> tuple[ImageClassifier, Saliency | None]:
    """Load a trained model, and what draws where it looks.

    Args:
        folder: as of :func:`load_image_classifier`.
        saliency: see :func:`scripts.inference.make_saliency`.
        settings: of :func:`load_image_classifier`.

    Raises:
        UserError: as both.
    """
    classifier = load_image_classifier(folder, **settings)
    return classifier, make_saliency(saliency, classifier.network, classifier.prepare)
