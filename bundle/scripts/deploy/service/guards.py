"""What stands before the routes: how much may be sent, how slowly, from which page, and what is noted of a request."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from scripts.deploy.limits import Limits
from scripts.deploy.logs import begin_request
from scripts.utils.errors import fault

REQUEST_ID = b"x-request-id"
"""The header of an answer that says by which id its lines are found in the log."""


@dataclass(frozen=True)
class RequestLimits(Limits):
    """What callers may take of the service, by their bodies: a longer one is answered 413, one too much 503.

    Args:
        body_seconds: for a body to come in, at most.
        idle_seconds: see :func:`scripts.deploy.http.make_server`.
        connections: at a time, at most.
    """

    body_seconds: float
    idle_seconds: int
    connections: int


class BodyLimit:
    """Answers 413, 408 or 503 as soon as a body is too large, too slow or one too much.

    Args:
        app: what stands behind it.
        limits: of bodies.
    """

    def __init__(self, app: ASGIApp, limits: RequestLimits) -> None:
        self.app = app
        self.limits = limits
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count, and look at the clock until the body is whole."""
        limits, received, whole = self.limits, 0, False
        too_large = f"at most {limits.max_bytes} bytes may be sent (key 'max_bytes')"
        deadline = asyncio.get_running_loop().time() + limits.body_seconds

        async def counted() -> Message:
            nonlocal received, whole
            if whole:
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise _refusal(408, "the request takes too long to come in (key 'limits#body_seconds')") from None
            size = len(message.get("body", b""))
            received += size
            self._held += size
            whole = not message.get("more_body", False)
            if received > limits.max_bytes:
                raise _refusal(413, too_large)
            if self._held > limits.max_held:
                raise _refusal(503, "too much is being sent: try again (key 'limits#max_held')")
            return message

        declared = Headers(scope=scope).get("content-length", "0") if scope["type"] == "http" else "0"
        if declared.isdecimal() and int(declared) > limits.max_bytes:
            if int(declared) <= 2 * limits.max_bytes:  # many callers read no answer before they have sent all
                await _discard(receive, deadline)
            return await _answer(send, 413, too_large)
        try:
            await self.app(scope, counted, send)
        finally:
            self._held -= received


def _refusal(status: int, detail: str) -> HTTPException:
    return HTTPException(status, detail, {"Connection": "close"})


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
        status, started, request = 500, time.perf_counter(), begin_request()

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), (REQUEST_ID, request.encode())]}
            await send(message)

        try:
            await self.app(scope, receive, noted)
        except Exception as error:  # Starlette has answered 500, and raises what it was; the words may name people
            self.logger.error(fault(error))
        seconds = time.perf_counter() - started
        route = getattr(scope.get("route"), "path", "(no route)")
        self.observe(scope["method"], route, status, seconds)
        self.logger.info("%s %s %d, %.0f ms", scope["method"], route, status, 1e3 * seconds)


async def _discard(receive: Receive, deadline: float) -> None:
    """Let a body pass; the server gives no more of it than was declared."""
    with suppress(TimeoutError):
        async with asyncio.timeout_at(deadline):
            while (message := await receive())["type"] == "http.request" and message.get("more_body", False):
                pass


async def _answer(send: Send, status: int, detail: str) -> None:
    content = json.dumps({"detail": detail}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, (b"connection", b"close")]})
    await send({"type": "http.response.body", "body": content})
