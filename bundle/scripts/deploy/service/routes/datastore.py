"""Images to be labelled, and their labels."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Response, UploadFile
from fastapi.responses import FileResponse, JSONResponse

from scripts.deploy.service.answering import Sent
from scripts.deploy.service.images import ImageStore, Tag
from scripts.deploy.service.problems import Problem, unknown
from scripts.deploy.service.routes.common import (
    ADMIN,
    LABELLER,
    READER,
    REFUSALS,
    Asked,
    Asking,
    number_in,
    object_in,
)
from scripts.deploy.service.service import Service

router = APIRouter(prefix="/datastore", tags=["Datastore"], responses=REFUSALS)


class Listing(StrEnum):
    """What is listed: how many, everything, or the pairs to learn from."""

    STATS = "stats"
    ALL = "all"
    TRAIN = "train"


def stats(images: ImageStore) -> dict[str, Any]:
    """Return how many images there are and how many have which label."""
    counts = images.tags()
    return {"total": len(images), "completed": counts[Tag.FINAL], "label_tags": dict(sorted(counts.items()))}


@router.get("/", dependencies=READER)
def list_images(service: Asked, output: Listing = Listing.STATS) -> Any:
    """List the images: how many (`stats`), all with their labels (`all`), or those that are labelled (`train`)."""
    if output is Listing.STATS:
        return stats(service.images)
    if output is Listing.TRAIN:
        return [{"image": image, "label": label} for image, label in service.images.classes().items()]
    names = {"name": "service", "description": "Images to be labelled", "images_dir": "", "labels_dir": "labels"}
    return {**names, "objects": service.images.records()}


@router.put("/", dependencies=LABELLER, include_in_schema=False)
@router.put("/image", dependencies=LABELLER)
async def add_image(
    service: Asked,
    file: Annotated[UploadFile, File()],
    image: str | None = None,
    params: Annotated[str, Form()] = "{}",
) -> dict[str, str]:
    """Keep an image, as pixels alone; the answer says what it is called here, whatever it was called before.

    `params` may hold `group`, a patient's or lesion's name, of which an HMAC is kept (images of one group never stand
    on both sides of training and test), and `picture`, the number of the frame or slice from 0.
    """
    given = object_in(params)
    sent = Sent(file.file, file.filename or "")
    kept = await service.answering.kept(sent, number_in(given, "picture"), service.images.key)
    group = service.images.anonymous(str(given["group"])) if given.get("group") else kept.patient
    return {"image": service.images.add(kept.pixels, group, kept.values)}


@router.delete("/", dependencies=ADMIN, include_in_schema=False)
@router.delete("/image", dependencies=ADMIN)
def remove_image(service: Asked, asking: Asking, id: str) -> dict[str, str]:
    """Delete an image and its labels, unless a version has learnt from it: its test and its memory need it."""
    if service.trainings.learnt_from(id):
        raise Problem(
            409,
            "a version has learnt from this image: dynammo forget takes it out of the training's run",
        )
    service.images.record(id)
    service.versions.audit.add("image deleted", {"image": id}, asking.name)
    service.images.remove(id)
    return {}


@router.head("/image", dependencies=READER)
def check_image(service: Asked, image: str, check_sum: str | None = None) -> Response:
    """Say whether an image is here, and is the one with a checksum."""
    known = service.images.record(image)["image"]["info"]["checksum"]
    if check_sum is not None and check_sum.rpartition(":")[2].lower() != known.rpartition(":")[2]:
        raise unknown("image with this checksum")
    return Response()


@router.get("/image", dependencies=READER, response_class=FileResponse)
def download_image(service: Asked, image: str) -> FileResponse:
    """Return an image."""
    return _file(service, image)


def _file(service: Service, image: str) -> FileResponse:
    path = service.images.path(image)
    return FileResponse(path, filename=path.name)


@router.get("/image/info", dependencies=READER)
def image_info(service: Asked, image: str) -> dict[str, Any]:
    """Return what is known of an image."""
    return service.images.record(image)["image"]["info"]


@router.put("/label", dependencies=LABELLER)
async def save_label(
    service: Asked,
    asking: Asking,
    image: str,
    label: Annotated[UploadFile, File()],
    tag: Tag = Tag.FINAL,
    params: Annotated[str, Form()] = "{}",
) -> dict[str, str]:
    """Label an image: a JSON file `{"label": CLASS}`, or what `infer` answered, whose most probable class counts."""
    name = _class_in(await label.read())
    if tag is Tag.FINAL:
        service.relabel([image], name, asking)
    else:
        service.images.set_label(image, tag, name, asking.name)
    return {"image": image, "label": image}


def _class_in(content: bytes) -> str:
    try:
        found = object_in(content.decode("utf-8-sig"), "the label")
    except UnicodeDecodeError:
        raise Problem(422, "the label must be a JSON object") from None
    name = found.get("label", found.get("predicted_class"))
    if not isinstance(name, str):
        raise Problem(422, 'the label must name a class: {"label": CLASS}')
    return name


@router.delete("/label", dependencies=ADMIN)
def remove_label(service: Asked, asking: Asking, id: str, tag: Tag) -> dict[str, str]:
    """Take a label back."""
    said = service.images.label(id, tag)
    details = {"image": id, "label": said["label"], "labelled_by": said.get("by")}
    service.versions.audit.add("label deleted", details, asking.name)
    service.images.remove_label(id, tag, asking.name)
    return {}


@router.head("/label", dependencies=READER)
def check_label(service: Asked, image: str, tag: Tag) -> Response:
    """Say whether an image has a label."""
    service.images.label(image, tag)
    return Response()


@router.get("/label", dependencies=READER)
def download_label(service: Asked, label: str, tag: Tag) -> Response:
    """Return a label as a JSON file."""
    content = json.dumps(service.images.label(label, tag)).encode()
    named = {
        "Content-Disposition": f'attachment; filename="{service.images.record(label)["image"]["info"]["name"]}.json"'
    }
    return Response(content, media_type="application/json", headers=named)


@router.get("/label/info", dependencies=READER)
def label_info(service: Asked, label: str, tag: Tag) -> JSONResponse:
    """Return what is known of a label."""
    return JSONResponse(service.images.label(label, tag))
