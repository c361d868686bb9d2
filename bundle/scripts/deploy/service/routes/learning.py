"""Which image to label next, learning from the labels, and how well the model agrees with them."""

from __future__ import annotations

from collections.abc import Mapping
from threading import Event
from typing import Annotated, Any

from fastapi import APIRouter, Body

from scripts.deploy.service.problems import unknown
from scripts.deploy.service.routes.common import ADMIN, READER, REFUSALS, Asked, Asking
from scripts.deploy.service.service import Service
from scripts.metrics.accuracy_matrix import accuracy, mean_class_recall

router = APIRouter(responses=REFUSALS)

Params = Annotated[dict[str, Any] | None, Body()]
METHODS = {"accuracy": "How the served version agrees with the labels, class by class"}


@router.post("/activelearning/{strategy}", dependencies=READER, tags=["Active learning"])
def next_sample(service: Asked, strategy: str, params: Params = None) -> dict[str, Any]:
    """Return the image that a strategy would have labelled next; nothing where all are labelled."""
    found = service.next_image(strategy)
    if found is None:
        return {}
    image, wanted = found
    info = service.images.record(image)["image"]["info"]
    return {"id": image, "path": info["name"], "score": wanted, **info}


@router.get("/train/", dependencies=READER, tags=["Train"])
def train_status(service: Asked, all: bool = False, check_if_running: bool = False) -> Any:
    """Say how the last training stands; `all`: every one, oldest first."""
    return service.trainings.tasks() if all else service.trainings.status(check_if_running)


@router.post("/train/", dependencies=ADMIN, tags=["Train"], include_in_schema=False)
def train_all(service: Asked, asking: Asking, params: Params = None) -> dict[str, Any]:
    """Start learning, as the clients of older servers ask for it."""
    return {service.model: {"result": service.trainings.start(params or {}, asking.name), "detail": None}}


@router.post("/train/{model}", dependencies=ADMIN, tags=["Train"])
def train(service: Asked, asking: Asking, model: str, params: Params = None) -> dict[str, Any]:
    """Start learning the classes that images are labelled with and that the served version does not know.

    `classes` names some of them, `max_epochs` the epochs of the stage that tunes.
    """
    service.require_model(model)
    return service.trainings.start(params or {}, asking.name)


@router.delete("/train/", dependencies=ADMIN, tags=["Train"])
def stop_training(service: Asked) -> dict[str, Any] | None:
    """Stop the training that runs."""
    return service.trainings.stop()


@router.get("/scoring/", dependencies=READER, tags=["Scoring"])
def scoring_status(service: Asked, check_if_running: bool = False) -> dict[str, Any]:
    """Say how the last scoring stands."""
    return service.scoring.status(check_if_running)


@router.post("/scoring/{method}", dependencies=READER, tags=["Scoring"])
def score(service: Asked, method: str, params: Params = None, run_sync: bool = False) -> dict[str, Any]:
    """Compare the labels with what the served version says."""
    if method not in METHODS:
        raise unknown("method", f"choose among {', '.join(METHODS)}")
    if run_sync:
        return dict(_agreement(service, Event()))
    return service.scoring.start({"method": method}, lambda stop: _agreement(service, stop))


@router.delete("/scoring/", dependencies=READER, tags=["Scoring"])
def stop_scoring(service: Asked) -> dict[str, Any] | None:
    """Stop the scoring that runs."""
    return service.scoring.stop()


def _agreement(service: Service, stop: Event) -> Mapping[str, Any]:
    labels = service.images.classes()
    said = service.answering.results({image: service.images.path(image) for image in labels}, stop)
    known = {image: [*result.probabilities] for image, result in said.items() if labels[image] in result.probabilities}
    expected = [names.index(labels[image]) for image, names in known.items()]
    predicted = [names.index(said[image].predicted_class) for image, names in known.items()]
    return {
        "images": len(known),
        "unknown_classes": len(said) - len(known),
        "accuracy": accuracy(expected, predicted) if known else None,
        "mean_class_recall": mean_class_recall(expected, predicted) if known else None,
    }
