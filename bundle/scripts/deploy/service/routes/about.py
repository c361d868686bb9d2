"""What the service is and how it fares: information, health, figures, log, tokens and sessions."""

from __future__ import annotations

from collections import deque
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Request, Response, UploadFile
from fastapi.responses import FileResponse, PlainTextResponse

from scripts import bundle_version
from scripts.deploy.service.access import Access
from scripts.deploy.service.acquisition import DESCRIPTIONS
from scripts.deploy.service.answering import Sent
from scripts.deploy.service.problems import Problem
from scripts.deploy.service.routes.common import ADMIN, READER, REFUSALS, Asked, Asking
from scripts.deploy.service.routes.datastore import stats
from scripts.deploy.service.routes.learning import METHODS

router = APIRouter(responses=REFUSALS)
MOST_LINES = 10_000


@router.get("/info/", dependencies=READER, tags=["App"])
def info(service: Asked) -> dict[str, Any]:
    """Say which model is served, which classes it knows, and what can be asked for."""
    classifier = service.answering.classifier
    labels = {name: idx for idx, name in enumerate(classifier.model.classes)}
    backbone: Any = classifier.network.backbone
    model = {
        "type": "classification",
        "labels": labels,
        "dimension": backbone.spatial_dims,
        "description": "Classifier that learns new classes",
        "config": {},
        **classifier.model.record(),
    }
    last = service.trainings.tasks()[-1:]
    return {
        "name": "continual",
        "description": "A labelling service that learns",
        "version": bundle_version(),
        "labels": list(labels),
        "models": {service.model: model},
        "trainers": {service.model: {"description": "Learns the new classes of the labels", "config": {}}},
        "strategies": {name: {"description": text} for name, text in DESCRIPTIONS.items()},
        "scoring": {name: {"description": text} for name, text in METHODS.items()},
        "train_stats": {service.model: last[0] if last else {}},
        "datastore": stats(service.images),
    }


@router.get("/healthz", tags=["App"])
def health(service: Asked) -> dict[str, str]:
    """Say that the service answers, and with which version."""
    return {"status": "ok", "version": service.answering.classifier.model.version}


@router.get("/metrics", dependencies=READER, tags=["App"], response_class=PlainTextResponse)
def metrics(request: Request) -> Response:
    """Return figures for Prometheus."""
    return Response(request.app.state.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/logs/", dependencies=ADMIN, tags=["App"], response_class=PlainTextResponse)
def logs(service: Asked, lines: int = 300) -> PlainTextResponse:
    """Return the last lines of the service's log."""
    with service.log.open(encoding="utf-8", errors="replace") as file:
        return PlainTextResponse("".join(deque(file, max(0, min(lines, MOST_LINES)))))


@router.get("/auth/", tags=["Access"])
def auth(request: Request) -> dict[str, bool]:
    """Say whether anybody must sign in."""
    access: Access = request.app.state.access
    return {"enabled": access.enabled}


@router.post("/auth/token", tags=["Access"])
def auth_token(
    request: Request, password: Annotated[str, Form()], username: Annotated[str, Form()] = ""
) -> dict[str, str]:
    """Sign in: the answer's token names the user in the requests that follow."""
    access: Access = request.app.state.access
    address = request.client.host if request.client else ""
    return {"access_token": access.sign_in(username, password, address), "token_type": "bearer"}


@router.get("/auth/token/valid", dependencies=READER, tags=["Access"])
def auth_token_valid() -> dict[str, str]:
    """Say whether the token that the request carries is known."""
    return {}


@router.get("/auth/user", tags=["Access"])
def auth_user(asking: Asking) -> dict[str, str]:
    """Say who asks, and in which role."""
    return {"name": asking.name, "role": asking.role}


@router.put("/session/", dependencies=READER, tags=["Session"])
async def create_session(service: Asked, files: Annotated[list[UploadFile], File()], expiry: int = 0) -> dict[str, Any]:
    """Keep an image for a while, to be asked about by its session."""
    if len(files) != 1:
        raise Problem(422, "a session holds one file")
    sent = Sent(files[0].file, files[0].filename or "")
    kept = await service.answering.kept(sent, None, service.images.key)
    session = service.sessions.add(kept.pixels, expiry)
    return {"session_id": session["name"], "session_info": session}


@router.get("/session/{session_id}", dependencies=READER, tags=["Session"])
def get_session(service: Asked, session_id: str, image: bool = False) -> Any:
    """Return what is known of a session, or its image."""
    if image:
        return FileResponse(service.sessions.path(session_id))
    return service.sessions.get(session_id)


@router.delete("/session/{session_id}", dependencies=READER, tags=["Session"])
def remove_session(service: Asked, session_id: str) -> dict[str, Any]:
    """Drop a session."""
    return service.sessions.remove(session_id)
