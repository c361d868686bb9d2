"""What stands before the routes: how much may be sent, from which page, and what is written down of each request."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from scripts.errors import fault


class BodyLimit:
    """Answers 413 as soon as more is sent than allowed; what came until then is all that is held.

    Args:
        app: what stands behind it.
        max_bytes: of a request's body.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count."""
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.max_bytes:
                raise HTTPException(413, f"at most {self.max_bytes} bytes may be sent (key 'max_bytes')")
            return message

        declared = Headers(scope=scope).get("content-length", "0") if scope["type"] == "http" else "0"
        if declared.isdecimal() and int(declared) > self.max_bytes:
            if int(declared) <= 2 * self.max_bytes:  # many callers read no answer before they have sent all
                await _discard(receive)
            await _answer(send, 413, f"at most {self.max_bytes} bytes may be sent (key 'max_bytes')")
        else:
            await self.app(scope, counted, send)


class SameOrigin:
    """Refuses what another site's page lets a browser send here: a service on loopback is open to all pages else.

    Args:
        app: what stands behind it.
        hosts: names by which the service may be called, so that no other name can be made to lead here.
    """

    def __init__(self, app: ASGIApp, hosts: tuple[str, ...]) -> None:
        self.app = app
        self.hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Look at where the request comes from."""
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            host, origin = headers.get("host", ""), headers.get("origin")
            if _hostname(f"//{host}") not in self.hosts:
                return await _answer(send, 421, "the service is not called by this name")
            if origin is not None and urlsplit(origin).netloc != host:
                return await _answer(send, 403, "pages of other sites may not ask here")
        await self.app(scope, receive, send)


def _hostname(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


class Watch:
    """Counts and writes down each request: method, route, status and time, and never a name that was sent.

    Args:
        app: what stands behind it.
        observe: takes method, route, status and seconds.
    """

    def __init__(self, app: ASGIApp, observe: Callable[[str, str, int, float], None]) -> None:
        self.app = app
        self.observe = observe
        self.logger = logging.getLogger(__name__)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        status, started = 500, time.perf_counter()

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noted)
        except Exception as error:  # Starlette has answered 500, and raises what it was; the words may name people
            self.logger.error(fault(error))
        seconds = time.perf_counter() - started
        route = getattr(scope.get("route"), "path", "(no route)")
        self.observe(scope["method"], route, status, seconds)
        self.logger.info("%s %s %d, %.0f ms", scope["method"], route, status, 1e3 * seconds)


async def _discard(receive: Receive) -> None:
    """Let a body pass; the server gives no more of it than was declared."""
    while (message := await receive())["type"] == "http.request" and message.get("more_body", False):
        pass


async def _answer(send: Send, status: int, detail: str) -> None:
    content = json.dumps({"detail": detail}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, (b"connection", b"close")]})
    await send({"type": "http.response.body", "body": content})
