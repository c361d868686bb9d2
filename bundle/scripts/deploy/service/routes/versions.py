"""What was learnt: the versions, and the one that is served as a file."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import FileResponse

from scripts.deploy.service.routes.common import ADMIN, READER, REFUSALS, Asked
from scripts.deploy.versions.store import Version
from scripts.utils.files import WEIGHTS

router = APIRouter(responses=REFUSALS)


@router.get("/tasks", dependencies=READER, tags=["Versions"])
def tasks(service: Asked) -> dict[str, Any]:
    """Return all versions, oldest first: what each has learnt, and what it forgot."""
    store = service.versions
    served = store.promoted()
    events = store.audit.events()
    return {
        "served": None if served is None else served.number,
        "versions": [_described(version, events) for version in store.versions()],
    }


def _described(version: Version, events: list[dict[str, Any]]) -> dict[str, Any]:
    own = [event for event in events if event.get("version") == version.number]
    refused = [event["objections"] for event in own if event["event"] == "refused"]
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
        "tasks": version.record["tasks"],
        "accuracy_matrix": version.record["accuracy_matrix"],
        "tested": version.record["tested"],
    }


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
