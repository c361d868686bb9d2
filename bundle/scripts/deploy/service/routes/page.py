"""The page in the browser: plain files without a build step, which ask the other routes."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

from fastapi import APIRouter, Response
from fastapi.responses import HTMLResponse

from scripts.deploy.service.problems import unknown

router = APIRouter(include_in_schema=False)
FOLDER = Path(__file__).resolve().parent.parent / "page"
KINDS = {".css": "text/css", ".js": "text/javascript", ".json": "application/json"}
FILES = {path.relative_to(FOLDER).as_posix(): path for path in FOLDER.rglob("*") if path.suffix in KINDS}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The browser runs the page's own files and no others, nothing that stands within a page, and asks nobody else."""


@router.get("/", response_class=HTMLResponse)
def page() -> HTMLResponse:
    """Return the page."""
    content = (FOLDER / "index.html").read_text(encoding="utf-8")
    return HTMLResponse(content, headers={"Content-Security-Policy": POLICY})


@router.get("/page/{name:path}")
def part(name: str) -> Response:
    """Return a file of the page."""
    if name not in FILES:
        raise unknown("file of the page")
    return Response(FILES[name].read_bytes(), media_type=KINDS[FILES[name].suffix])


def html_page(content: str) -> HTMLResponse:
    """Return a page of one style, its own, and no script."""
    (style,) = re.findall("<style>(.*?)</style>", content, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    return HTMLResponse(content, headers={"Content-Security-Policy": policy})
