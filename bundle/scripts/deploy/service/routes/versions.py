"""What was learnt: the versions, how two of them compare, and the one that is served as a file."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from fastapi.responses import FileResponse
from pydantic import BaseModel

from scripts.deploy.service.problems import Problem, unknown
from scripts.deploy.service.routes.common import ADMIN, READER, REFUSALS, Asked, Asking
from scripts.deploy.service.service import Service
from scripts.deploy.versions.gate import LEVEL, Gate, Measure, NewClass, OldClass, compare
from scripts.deploy.versions.store import Version
from scripts.utils.files import WEIGHTS

router = APIRouter(responses=REFUSALS)
Number = Annotated[int, Query(ge=1, le=10**9)]


class ClassCompared(BaseModel):
    """A class of a version, as its test images show it beside another version. All shares are 0..1.

    `images` were seen by both, where `is_new` is false; of them `lost` were told by the other version alone and
    `gained` by this one alone. `recall` is the share that is told. `bound` is what the gate goes by: the most that may
    have been lost, or the least recall of a new class; `limit` is what it is compared with.
    """

    name: str
    is_new: bool
    images: int
    lost: int
    gained: int
    before: float | None
    recall: float | None
    bound: float
    limit: float
    passes: bool
    decided: bool
    reason: str | None


class MeanCompared(BaseModel):
    """What the gate objects to the mean over classes: what is measured, how much it is and the limit, all 0..1."""

    measure: Measure
    bound: float
    limit: float
    decided: bool
    reason: str


class Compared(BaseModel):
    """Two versions side by side: every class, and what the gate objects to their mean."""

    number: int
    other: int | None
    classes: list[ClassCompared]
    means: list[MeanCompared]


@router.get("/tasks", dependencies=READER, tags=["Versions"])
def tasks(service: Asked) -> dict[str, Any]:
    """Return all versions in short, oldest first, and what is asked of a new one before it is served.

    `back` is the version that `/tasks/rollback` would serve.
    """
    store = service.versions
    served = store.promoted()
    events, history = store.audit.events(), store.history()
    return {
        "served": None if served is None else served.number,
        "back": history[-2] if len(history) > 1 else None,
        "gate": service.trainings.gate,
        "versions": [_described(version, events) for version in store.versions()],
    }


@router.get("/tasks/compare", dependencies=READER, tags=["Versions"])
def compare_versions(service: Asked, number: Number, other: Number | None = None) -> Compared:
    """Compare a version with another, class by class, as the gate does; without `other` as a first version."""
    found = {version.number: version for version in service.versions.versions()}
    if number not in found or (other is not None and other not in found):
        raise unknown("version")
    before = None if other is None else found[other]
    return _compared(service, found[number], before)


@router.get("/tasks/{number}", dependencies=READER, tags=["Versions"])
def task(service: Asked, number: int) -> dict[str, Any]:
    """Return a version whole: with its accuracy matrix, and the recall of each class."""
    version = {version.number: version for version in service.versions.versions()}.get(number)
    if version is None:
        raise unknown("version")
    kept = ("tasks", "accuracy_matrix", "tested")
    return {**_described(version, service.versions.audit.events()), **{name: version.record[name] for name in kept}}


@router.post("/tasks/rollback", dependencies=ADMIN, tags=["Versions"])
def roll_back(service: Asked, asking: Asking) -> dict[str, int]:
    """Serve the version again that was served before; `promoted` in `/tasks` says who has asked for it."""
    return {"served": service.rollback(asking.name)}


@router.post("/tasks/{number}/serve", dependencies=ADMIN, tags=["Versions"])
def serve(service: Asked, asking: Asking, number: Annotated[int, Path(ge=1, le=10**9)]) -> dict[str, int]:
    """Serve a version again that was served before, an earlier or a later one than that which is served now."""
    service.serve(number, asking.name)
    return {"served": number}


def _described(version: Version, events: list[dict[str, Any]]) -> dict[str, Any]:
    own = [event for event in events if event.get("version") == version.number]
    refused = [event["objections"] for event in own if event["event"] == "refused"]
    tested = version.record["tested"]
    return {
        "number": version.number,
        "parent": version.parent,
        "name": version.record["name"],
        "added": next(event["time"] for event in own if event["event"] == "added"),
        "promoted": [
            {"time": event["time"], "by": event["by"], "reason": event.get("reason")}
            for event in own
            if event["event"] in ("promoted", "rolled back")
        ],
        "objections": refused[-1] if refused else [],
        "learnt": version.record["tasks"][-1],
        "classes": len(version.classes),
        "mean_class_recall": tested["mean_class_recall"],
        "tested_images": sum(tested["images"].values()),
    }


def _compared(service: Service, version: Version, before: Version | None) -> Compared:
    try:
        gate = Gate(**service.trainings.gate)
    except TypeError:
        raise Problem(409, "this service asks nothing of a version (key 'gate')") from None
    found = compare(version, before)
    objections = gate.objections(found.old, found.new, found.recalls)
    named = {objection.of: objection for objection in objections}
    level = LEVEL / max(len(found.old) + len(found.new), 1)
    classes: list[ClassCompared] = []
    counted: dict[str, OldClass | NewClass] = {**found.old, **found.new}
    for name, own in counted.items():
        objection = named.get(name)
        classes.append(
            ClassCompared(
                name=name,
                **_figures(own),
                bound=own.bound(level),
                limit=gate.class_margin if isinstance(own, OldClass) else gate.class_floor,
                passes=objection is None,
                decided=objection is None or objection.decided,
                reason=None if objection is None else objection.reason,
            )
        )
    other = None if before is None else before.number
    means = [MeanCompared.model_validate(vars(objection)) for objection in objections if objection.of is None]
    return Compared(number=version.number, other=other, classes=classes, means=means)


def _figures(own: OldClass | NewClass) -> dict[str, Any]:
    if isinstance(own, NewClass):
        recall = own.recall if own.images else None
        return {"is_new": True, "images": own.images, "lost": 0, "gained": 0, "before": None, "recall": recall}
    counts = {"images": own.images, "lost": own.lost, "gained": own.gained}
    if not own.images:
        return {"is_new": False, **counts, "before": None, "recall": None}
    shares = {"before": own.told / own.images, "recall": own.told / own.images - own.loss}
    return {"is_new": False, **counts, **shares}


@router.get("/model/info/{model}", dependencies=ADMIN, tags=["Model"])
def model_info(service: Asked, model: str) -> dict[str, Any]:
    """Return the checksum of the weights that are served."""
    service.require_model(model)
    identity = service.answering.classifier.model
    modified = service.answering.served.folder.joinpath(WEIGHTS).stat().st_mtime
    return {"checksum": f"SHA256:{identity.weights_sha256}", "modified_time": int(modified), **identity.record()}


@router.get("/model/{model}", dependencies=ADMIN, tags=["Model"], response_class=FileResponse)
def download_model(service: Asked, model: str) -> FileResponse:
    """Return the weights that are served."""
    service.require_model(model)
    path = service.answering.served.folder.resolve() / WEIGHTS
    return FileResponse(path, filename=f"{model}{path.suffix}")
