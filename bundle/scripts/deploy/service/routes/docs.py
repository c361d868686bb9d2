"""The routes as a page and as an OpenAPI document, both drawn here: no script, and nothing from another host."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from scripts.deploy.service.routes.common import READER
from scripts.deploy.service.routes.page import html_page

router = APIRouter(dependencies=READER, include_in_schema=False)

STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h2 { margin-top: 2rem; }
section { border-top: 1px solid #8886; padding: .6rem 0; }
h3 { font: 600 15px/1.5 ui-monospace, monospace; margin: 0; overflow-wrap: anywhere; }
p, ul { margin: .3rem 0; }
"""


@router.get("/openapi.json")
def document(request: Request) -> dict[str, Any]:
    """Return the OpenAPI document."""
    return request.app.openapi()


@router.get("/docs", response_class=HTMLResponse)
def docs(request: Request) -> HTMLResponse:
    """Return a page of all routes."""
    api = request.app.openapi()
    by_tag: dict[str, list[str]] = {}
    for path, methods in api["paths"].items():
        for method, route in methods.items():
            by_tag.setdefault(route["tags"][0], []).append(_route(method, path, route))
    parts = [f"<h2>{escape(tag)}</h2>\n{''.join(routes)}" for tag, routes in by_tag.items()]
    return html_page(
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(api["info"]["title"])}</title>'
        f"<style>{STYLE}</style></head>\n<body><h1>{escape(api['info']['title'])}</h1>\n"
        f'<p>{_text(api["info"]["description"])}</p>\n<p>For programs: <a href="/openapi.json">/openapi.json</a></p>\n'
        f"{''.join(parts)}</body></html>\n"
    )


def _route(method: str, path: str, route: dict[str, Any]) -> str:
    paragraphs = "".join(f"<p>{_text(part)}</p>" for part in route.get("description", "").split("\n\n"))
    listed = "".join(f"<li>{line}</li>" for line in _parameters(route))
    answers = ", ".join(f"{status} {escape(answer['description'])}" for status, answer in route["responses"].items())
    return (
        f"<section><h3>{method.upper()} {escape(path)}</h3>{paragraphs}<ul>{listed}<li>Answers: {answers}</li></ul>"
        "</section>\n"
    )


def _parameters(route: dict[str, Any]) -> Iterator[str]:
    for parameter in route.get("parameters", []):
        needed = "" if parameter.get("required") else ", may be left out"
        yield f"<code>{escape(parameter['name'])}</code> in the {escape(parameter['in'])}{needed}"
    for kind in route.get("requestBody", {}).get("content", {}):
        yield f"Body: <code>{escape(kind)}</code>"


def _text(markdown: str) -> str:
    """Return a text as HTML, in which backticks are code."""
    return re.sub("`([^`]*)`", r"<code>\1</code>", escape(markdown))
