"""Images for who looks at them: their values, for a window of one's own, and small ones for a list."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, File, Query, Response, UploadFile

from scripts.deploy.service.answering import Sent
from scripts.deploy.service.routes.common import READER, REFUSALS, Asked
from scripts.deploy.service.views import LARGEST, SMALLEST, View, view_of_file, view_of_values

router = APIRouter(prefix="/pixels", tags=["Pixels"], responses=REFUSALS)
ABOUT = "X-Pixels"
"""Header of an answer, in which JSON says what its bytes are."""
VALUES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": f"Bytes, and the header {ABOUT}, which says what they are",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.get("/", dependencies=READER, response_class=Response, responses=VALUES)
def pixels(service: Asked, image: str) -> Response:
    """Return the values of an image that is kept: what was measured, of DICOM and NIfTI, else its pixels.

    The header `X-Pixels` holds JSON: `shape` ([slices, rows, columns], for colours with a 3 behind), `bits` (16: little
    endian without a sign, or 8), `lowest` and `step` (a value is lowest + step * what is sent), `black` and `white`
    (the window to begin with), `inverted`, `hounsfield`, and `aspect`, the height of a pixel over its width.
    """
    values = service.images.values(image)
    return pixels_response(view_of_file(service.images.path(image)) if values is None else view_of_values(values))


@router.post("/", dependencies=READER, response_class=Response, responses=VALUES)
async def pixels_of_file(service: Asked, file: Annotated[UploadFile, File()]) -> Response:
    """Return the values of all pictures of a file, of which nothing is kept; as for an image that is kept."""
    return pixels_response(await service.answering.view(Sent(file.file, file.filename or "")))


@router.get(
    "/thumbnail",
    dependencies=READER,
    response_class=Response,
    responses={200: {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}}},
)
def thumbnail(service: Asked, image: str, side: Annotated[int, Query(ge=SMALLEST, le=LARGEST)] = 96) -> Response:
    """Return an image that is kept as a small JPEG, of a volume the middle slice."""
    path, info = service.images.path(image), service.images.record(image)["image"]["info"]
    return Response(service.thumbnails.get(path, side, info["aspect"]), media_type="image/jpeg")


def pixels_response(view: View) -> Response:
    """Return pictures as bytes, with a header that says what they are."""
    return Response(view.content, media_type="application/octet-stream", headers={ABOUT: json.dumps(view.about)})
