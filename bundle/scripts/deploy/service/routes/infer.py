"""Ask for the class of an image."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Body, Depends, File, Form, Response, UploadFile
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from scripts.deploy.service.answering import Answer, Sent
from scripts.deploy.service.images import Tag
from scripts.deploy.service.problems import Problem
from scripts.deploy.service.routes.common import ADMIN, READER, REFUSALS, Asked, Asking, number_in, object_in
from scripts.deploy.service.routes.pixels import pixels_response
from scripts.deploy.service.service import Service
from scripts.deploy.service.views import view_of_pixels
from scripts.imaging.drawing import png_bytes

router = APIRouter(tags=["Infer"], responses=REFUSALS)


class Output(StrEnum):
    """What is answered: the classes, the image with Grad-CAM over it, both as a form, or Grad-CAM alone."""

    JSON = "json"
    IMAGE = "image"
    ALL = "all"
    HEAT = "heat"


class Prediction(BaseModel):
    """A class, by its number and name, and its probability, 0..1."""

    idx: int
    label: str
    score: float


class Said(BaseModel):
    """What the served version says of an image."""

    prediction: list[Prediction]
    label_names: dict[str, int]
    latencies: dict[str, float]
    version: str
    model: dict[str, Any]
    predicted_class: str
    indeterminate: bool
    probabilities: dict[str, float]
    findings: list[str] | None = None


class Images(StrEnum):
    """Which images of the datastore."""

    ALL = "all"
    LABELED = "labeled"
    UNLABELED = "unlabeled"


def _known_model(service: Asked, model: str) -> None:
    """Let no other model's name pass; a version that was promoted is loaded here, off the loop that answers."""
    service.require_model(model)


@router.post(
    "/infer/{model}",
    dependencies=[*READER, Depends(_known_model)],
    response_model=Said,
    responses={200: {"content": {"image/png": {}, "multipart/form-data": {}}}},
)
async def infer(
    service: Asked,
    model: str,
    image: str = "",
    session_id: str = "",
    output: Output = Output.JSON,
    params: Annotated[str, Form()] = "{}",
    file: Annotated[UploadFile | None, File()] = None,
) -> Response:
    """Classify an image: one that is sent, one of the datastore or one of a session.

    `output=image` answers with the image and Grad-CAM beside it (PNG), unless the result is indeterminate, `all` with a
    form of `params` (JSON) and `image`, `heat` with Grad-CAM alone as the network sees it, 255 where it is highest:
    bytes as of `/pixels/`, of a volume slice by slice. `params` may hold `picture`, the number of the frame or slice
    from 0.
    """
    picture = number_in(object_in(params), "picture")
    given = await _given(service, image, session_id, file)
    answer = await service.answering.answer(given, picture, output is not Output.JSON)
    if output is Output.JSON:
        return JSONResponse(answer.record())
    drawing = answer.drawing
    if drawing is None:
        if output is Output.ALL:
            return _form(answer, b"")
        raise Problem(422, "the result is indeterminate, so that there is no class to show the place of")
    if output is Output.HEAT:
        return pixels_response(view_of_pixels(np.rint(255 * drawing.heats).astype(np.uint8)))
    sheet = await run_in_threadpool(png_bytes, drawing.picture)
    return _form(answer, sheet) if output is Output.ALL else Response(sheet, media_type="image/png")


async def _given(service: Service, image: str, session_id: str, file: UploadFile | None) -> Any:
    if file is not None:
        return Sent(file.file, file.filename or "")
    if session_id:
        return service.sessions.path(session_id)
    if image:
        return service.images.path(image)
    raise Problem(422, "no image: send a file, or name an image or a session")


def _form(answer: Answer, sheet: bytes) -> Response:
    mark = uuid.uuid4().hex
    parts = (
        ("params", "application/json", json.dumps(answer.record()).encode()),
        ("image", "image/png", sheet),
    )
    body = b""
    for name, kind, content in parts:
        named = f'name="{name}"' + ('; filename="saliency.png"' if name == "image" else "")
        head = f"--{mark}\r\nContent-Disposition: form-data; {named}\r\nContent-Type: {kind}\r\n\r\n"
        body += head.encode() + content + b"\r\n"
    return Response(body + f"--{mark}--\r\n".encode(), media_type=f"multipart/form-data; boundary={mark}")


@router.get("/batch/infer", dependencies=READER)
def batch_status(service: Asked, check_if_running: bool = False) -> dict[str, Any]:
    """Say how the last batch stands."""
    return service.batches.status(check_if_running)


@router.post("/batch/infer/{model}", dependencies=ADMIN)
def batch_infer(
    service: Asked,
    asking: Asking,
    model: str,
    images: Images = Images.ALL,
    params: Annotated[dict[str, Any] | None, Body()] = None,
    run_sync: bool = False,
) -> dict[str, Any]:
    """Classify the images of the datastore; what is said of each becomes its label `original`."""
    service.require_model(model)
    request = {"model": model, "images": images}
    if run_sync:
        return dict(_label_all(service, asking.name, images, threading.Event()))
    return service.batches.start(request, lambda stop: _label_all(service, asking.name, images, stop))


@router.delete("/batch/infer", dependencies=ADMIN)
def stop_batch(service: Asked) -> dict[str, Any] | None:
    """Stop the batch that runs."""
    return service.batches.stop()


def _label_all(service: Service, by: str, images: Images, stop: threading.Event) -> Mapping[str, Any]:
    labelled = service.images.classes()
    wanted = {Images.ALL: lambda _: True, Images.LABELED: labelled.__contains__}
    chosen = wanted.get(images, lambda image: image not in labelled)
    files = {image: path for image, path in service.images.paths().items() if chosen(image)}
    said = service.answering.results(files, stop)
    for image, result in said.items():
        best = result.predicted_class
        service.images.set_label(image, Tag.ORIGINAL, result.said, by, score=result.probabilities[best])
    return {"total": len(files), "images": sorted(said)}
