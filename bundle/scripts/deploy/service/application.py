"""The routes as one application, and the guards before it."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.formparsers import MultiPartParser
from starlette.types import ASGIApp

from scripts import bundle_version
from scripts.deploy.service.guards import BodyLimit, SameOrigin, Watch
from scripts.deploy.service.metrics import Metrics
from scripts.deploy.service.problems import answer_to
from scripts.deploy.service.routes import ROUTERS
from scripts.deploy.service.service import Service
from scripts.utils.errors import UserError

TITLE = "A labelling service that learns"
DESCRIPTION = (
    "Routes and JSON of MONAI Label for a classifier that learns new classes; besides, `/tasks`, `/healthz` and "
    "`/metrics`. For research, not a medical device."
)
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def make_application(service: Service) -> ASGIApp:
    """Return what answers requests.

    Args:
        service: what the routes ask.
    """
    MultiPartParser.spool_max_size = service.limits.max_bytes  # what is sent is in no file
    app = FastAPI(
        title=TITLE, description=DESCRIPTION, version=bundle_version(), openapi_url=None
    )  # see routes/docs.py
    app.state.service, app.state.access = service, service.access
    app.state.metrics = Metrics(
        images=lambda: len(service.images),
        version=lambda: service.answering.classifier.model.version,
        training=service.trainings.running,
        folder=service.folder,
    )
    app.add_exception_handler(UserError, _refuse)
    app.add_exception_handler(RequestValidationError, _reject)
    app.add_exception_handler(Exception, _apologise)
    for router in ROUTERS:
        app.include_router(router)
    guarded: ASGIApp = BodyLimit(app, service.limits)
    if not service.access.sends_tokens:  # which a browser does not by itself
        guarded = SameOrigin(guarded, (*LOOPBACK, service.access.host))
    return Watch(guarded, app.state.metrics.observe)


async def _refuse(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, UserError)
    status, content = answer_to(error)
    return JSONResponse(content, status, {"WWW-Authenticate": "Bearer"} if status == 401 else None)


async def _reject(request: Request, error: Exception) -> JSONResponse:
    """Say what is wrong with a request, without what it held, which may not even be text."""
    assert isinstance(error, RequestValidationError)
    parts = [{"loc": list(part["loc"]), "msg": str(part["msg"]), "type": str(part["type"])} for part in error.errors()]
    return JSONResponse({"detail": parts}, 422)


async def _apologise(request: Request, error: Exception) -> JSONResponse:
    """Say nothing of a fault: where it happened is written to the log."""
    return JSONResponse({"detail": "a fault in the service: see its log"}, 500)
