"""Going through images one after the other: the list in order, labels of several, and what was changed."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from scripts.deploy.service.images import LARGEST_NAME, Listed
from scripts.deploy.service.problems import unknown
from scripts.deploy.service.routes.common import ADMIN, LABELLER, READER, REFUSALS, Asked, Asking
from scripts.deploy.service.worklist import Order, Shown, Wanted, classes_given, listed, near
from scripts.model.decisions.results import Result

router = APIRouter(prefix="/datastore", tags=["Labels"], responses=REFUSALS)
MOST, PAGE = 500, 100
MOST_AT_ONCE = 10_000
Name = Annotated[str, Field(max_length=LARGEST_NAME)]
Names = Annotated[list[Annotated[str, Field(max_length=64)]], Field(min_length=1, max_length=MOST_AT_ONCE)]


class Item(BaseModel):
    """An image of the list. `doubt` is 0..1, `null` as long as the model was not asked about the image."""

    image: str
    added: int
    label: str | None
    by: str | None
    time: int | None
    predicted: str | None
    probability: float | None
    doubt: float | None
    why: str | None


class Worklist(BaseModel):
    """A page of the list. `asked` of the `total - labelled` images that wait are those the model was asked about."""

    version: str
    total: int
    labelled: int
    asked: int
    found: int
    offset: int
    items: list[Item]


class Labelled(BaseModel):
    """Images, and the class that they show; `null`: their label is taken away."""

    images: Names
    label: Name | None


class Renamed(BaseModel):
    """A class, and what it is to be called; where there is a class of this name, both become one."""

    label: Name
    name: Name


class Change(BaseModel):
    """What a change of labels is called, to be undone by, and how many images it was of."""

    change: str
    images: int


@router.get("/worklist", dependencies=READER)
def worklist(
    service: Asked,
    order: Order = Order.DOUBT,
    show: Shown = Shown.WAITING,
    label: Annotated[str | None, Query(max_length=LARGEST_NAME)] = None,
    search: Annotated[str, Query(max_length=LARGEST_NAME)] = "",
    offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
    limit: Annotated[int, Query(ge=1, le=MOST)] = PAGE,
) -> Worklist:
    """List images, those first about which the model doubts most: 1 less the gap between its best two classes.

    The model is asked about the images that wait from the first request on, one after the other; those that it was not
    asked about yet stand at the end.
    """
    service.ask_about_waiting()
    images, said = service.images.listed(), dict(service.answering.known_results())
    found = listed(images, said, Wanted(order, show, label, search))
    waiting = [one for one in images if one.label is None]
    return Worklist(
        version=service.answering.classifier.model.version,
        total=len(images),
        labelled=len(images) - len(waiting),
        asked=sum(one.image in said for one in waiting),
        found=len(found),
        offset=offset,
        items=[_item(one, doubt, said.get(one.image)) for one, doubt in found[offset : offset + limit]],
    )


def _item(one: Listed, doubt: float | None, result: Result | None) -> Item:
    told: dict[str, Any] = {"predicted": None, "probability": None, "why": None}
    if result is not None:
        best = result.predicted_class
        told = {"predicted": result.said, "probability": result.probabilities[best], "why": result.doubt}
    own = {"image": one.image, "added": one.added, "label": one.label, "by": one.by, "time": one.time}
    return Item.model_validate({**own, **told, "doubt": doubt})


@router.get("/labels", dependencies=READER)
def labels(service: Asked) -> list[dict[str, Any]]:
    """List the classes that were given: by whom, when, to how many images of how many patients.

    `missing` says how many patients more a class that is new needs before it can be learnt.
    """
    return classes_given(service.images.listed(), service.answering.classifier.model.classes)


@router.get("/labels/near", dependencies=READER)
def near_names(service: Asked, name: Annotated[str, Query(max_length=LARGEST_NAME)]) -> dict[str, Any]:
    """Say whether a class is `known` to the model or was `given` before, and which names are `near` to it."""
    known, given = service.answering.classifier.model.classes, set(service.images.classes().values())
    return {"known": name in known, "given": name in given, "near": near(name, [*known, *sorted(given - {*known})])}


@router.post("/labels", dependencies=LABELLER)
def set_labels(service: Asked, asking: Asking, labelled: Labelled) -> Change:
    """Say of several images what they show, or, as an admin, take it back."""
    change = service.relabel(labelled.images, labelled.label, asking)
    return Change(change=change, images=len(set(labelled.images)))


@router.post("/labels/rename", dependencies=ADMIN)
def rename_label(service: Asked, asking: Asking, renamed: Renamed) -> Change:
    """Call a class of the labels by another name; what versions have learnt keeps the old one."""
    images = [one.image for one in service.images.listed() if one.label == renamed.label]
    if not images:
        raise unknown("class among the labels")
    return Change(change=service.relabel(images, renamed.name, asking), images=len(images))


@router.post("/labels/undo", dependencies=LABELLER)
def undo_labels(service: Asked, asking: Asking, change: Annotated[str, Query(max_length=64)]) -> Change:
    """Take a change of labels back, your own or, as an admin, anybody's, where nothing was changed since."""
    return Change(change=change, images=len(service.undo(change, asking)))


@router.get("/label/history", dependencies=READER)
def label_history(service: Asked, image: str) -> list[dict[str, Any]]:
    """Return all changes of an image's label, oldest first: `label`, `by`, `ts`, and what was there `before`."""
    return service.images.history(image)
