"""The page in the browser: one file, which asks the other routes."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

router = APIRouter()
PAGE = Path(__file__).resolve().parent.parent / "page.html"


@router.get("/", include_in_schema=False, response_class=HTMLResponse)
def page() -> HTMLResponse:
    """Return the page. The browser runs its script and no other, and asks nobody but this service."""
    return html_page(PAGE.read_text(encoding="utf-8"))


def html_page(content: str) -> HTMLResponse:
    """Return a page with one style and at most one script, both its own."""
    scripts = _hash_of("script", content) if "<script>" in content else "'none'"
    policy = (
        f"default-src 'none'; script-src {scripts}; style-src {_hash_of('style', content)}; "
        "img-src blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return HTMLResponse(content, headers={"Content-Security-Policy": policy})


def _hash_of(tag: str, content: str) -> str:
    """Return the hash by which a browser knows the page's own script, or style."""
    (inner,) = re.findall(f"<{tag}>(.*?)</{tag}>", content, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(inner.encode()).digest()).decode()}'"
