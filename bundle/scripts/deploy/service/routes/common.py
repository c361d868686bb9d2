"""What all routes share."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import Depends, Request
from pydantic import BaseModel

from scripts.deploy.service.access import asker, require
from scripts.deploy.service.problems import Problem
from scripts.deploy.service.service import Service
from scripts.deploy.service.users import Role, User


class Refusal(BaseModel):
    """Why a request was not done: in English, and where people meet it as a code with the values of its words."""

    detail: str | list[dict[str, Any]]
    reason: str | None = None
    values: dict[str, str | int] = {}


def _service(request: Request) -> Service:
    return request.app.state.service


Asked = Annotated[Service, Depends(_service)]
Asking = Annotated[User, Depends(asker)]
READER, LABELLER, ADMIN = ([Depends(require(role))] for role in Role)
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Refusal, "description": text}
    for status, text in {
        400: "Broken",
        401: "Nobody that is known",
        403: "Not allowed",
        404: "Unknown",
        409: "Not possible as things stand",
        413: "Too large",
        415: "Not a kind of image that is read",
        422: "Means nothing, or is refused",
        429: "At work already",
    }.items()
}


def object_in(text: str, what: str = "params") -> dict[str, Any]:
    """Read the JSON object that a form's field holds.

    Raises:
        Problem: 422, it holds something else.
    """
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Problem(422, f"{what} must be a JSON object")
    return found


def number_in(params: dict[str, Any], name: str) -> int | None:
    """Return a whole number among parameters, where it is there.

    Raises:
        Problem: 422, it is something else.
    """
    value = params.get(name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise Problem(422, f"{name} must be a whole number")
    return value
