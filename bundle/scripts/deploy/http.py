"""HTTP behind limits that the library does not have, for every door that speaks it."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from scripts.deploy.listening import cannot_listen

PRIVATE = [
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
]
"""Headers of every answer: nothing is kept by a browser, guessed at, shown within another site, or told to one."""
GRACE = 0.5
"""Seconds in which a connection that has just come is not the first to give way."""
PATIENCE = 10
"""Seconds that requests at hand may take once a server is to stop."""


class Connection(H11Protocol):
    """A connection that is closed when its caller keeps it waiting.

    The caller has `timeout_keep_alive` seconds for the whole head of a request, and to go on taking an answer. Once
    half as many connections are open as may be, that which has waited longest for a request to be whole gives way to a
    new one, unless it has only just come: slow callers keep nobody out.
    """

    _deadline: asyncio.TimerHandle | None = None
    _since = 0.0  # when it began to wait for a request

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Make room, and wait for a request."""
        self._make_room()
        super().connection_made(transport)
        self._expect()

    def data_received(self, data: bytes) -> None:
        """Stop the clock once the head of a request is there."""
        waited = self._waits()
        super().data_received(data)
        if waited and not self._waits():
            self._stop()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        if self._waits():
            self._expect()

    def pause_writing(self) -> None:
        """Wait for the caller to take what was sent."""
        super().pause_writing()
        self._start()

    def resume_writing(self) -> None:
        """Stop the clock."""
        super().resume_writing()
        self._stop()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        super().connection_lost(exc)
        self._stop()

    def _waits(self) -> bool:
        """Say whether no request is at hand."""
        return self.cycle is None or self.cycle.response_complete

    def _make_room(self) -> None:
        """Close what has waited longest; from its limit on the library answers 503."""
        limit = self.limit_concurrency
        while limit is not None and len(self.connections) >= limit // 2:
            ours = (one for one in self.connections if isinstance(one, Connection))
            waiting = [one for one in ours if one._waits() or one.cycle.more_body]
            oldest = min(waiting, key=lambda one: one._since, default=None)
            is_full = len(self.connections) >= limit - 1
            if oldest is None or not (is_full or self.loop.time() - oldest._since > GRACE):
                break
            self.connections.discard(oldest)
            oldest.transport.abort()

    def _expect(self) -> None:
        self._since = self.loop.time()
        self._start()

    def _start(self) -> None:
        self._stop()
        self._deadline = self.loop.call_later(self.timeout_keep_alive, self.transport.abort)

    def _stop(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def make_server(application: ASGIApp, connections: int, idle_seconds: int) -> uvicorn.Server:
    """Return a server that writes no log and is not to be kept waiting.

    Args:
        application: what answers.
        connections: at a time, at most.
        idle_seconds: for the head of a request, at most; for a caller to go on taking an answer; between requests.
    """
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    return uvicorn.Server(
        uvicorn.Config(
            application,
            http=Connection,
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            headers=PRIVATE,
            limit_concurrency=connections,
            timeout_keep_alive=idle_seconds,
            timeout_graceful_shutdown=PATIENCE,
        )
    )


@contextmanager
def listening(host: str, port: int, key: str = "port") -> Iterator[socket.socket]:
    """Listen on an address.

    Args:
        host: of this machine.
        port: 0 for any that is free.
        key: of the config, that names the port.

    Raises:
        UserError: the address is not to be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise cannot_listen(host, port, error if isinstance(error, OSError) else OSError(str(error)), key) from error
    with listener:
        yield listener
