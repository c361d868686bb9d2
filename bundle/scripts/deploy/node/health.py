"""How the node fares, over HTTP: for what starts it again, and for who watches it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from scripts.deploy.http import listening, make_server
from scripts.deploy.inference.drift import DriftMonitor
from scripts.deploy.node.metrics import Standing, figures
from scripts.utils.errors import UserError

CONNECTIONS, IDLE_SECONDS = 20, 5
"""Those who watch are few, and quick."""


class Health:
    """Answers ``/healthz`` (the process lives), ``/readyz`` (images are classified and results arrive), ``/metrics``.

    Args:
        host: address to listen on.
        port: 0 for any that is free; ``port`` says which, once it runs.
        drift: what compares the images that come, for its figures; ``None``: nobody does.
    """

    def __init__(self, host: str, port: int, drift: DriftMonitor | None = None) -> None:
        self.host = host
        self.port = port
        self.drift = drift
        self._logger = logging.getLogger(__name__)

    @contextmanager
    def answering(self, standing: Callable[[], Standing]) -> Iterator[None]:
        """Answer until the end of the block.

        Args:
            standing: returns how the node stands; a UserError is a reason why nothing goes on.

        Raises:
            UserError: the address is not to be had.
        """
        with listening(self.host, self.port, "health_port") as listener:
            self.port = int(listener.getsockname()[1])
            server = make_server(_application(standing, self.drift), CONNECTIONS, IDLE_SECONDS)
            thread = threading.Thread(target=server.run, args=([listener],), name="health", daemon=True)
            thread.start()
            self._logger.info("Saying how it fares on http://%s:%d/readyz.", self.host, self.port)
            try:
                yield
            finally:
                server.should_exit = True
                thread.join()


def _application(standing: Callable[[], Standing], drift: DriftMonitor | None) -> Starlette:
    def healthz(request: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    def readyz(request: Request) -> JSONResponse:
        try:
            found = standing()
            trouble, counts = found.trouble, found.counts
        except UserError as error:
            trouble, counts = str(error), {}
        content = {"status": "ready" if trouble is None else "not ready", "detail": trouble, "images": counts}
        return JSONResponse(content, 200 if trouble is None else 503)

    def metrics(request: Request) -> Response:
        return Response(figures(standing(), drift), media_type=CONTENT_TYPE_LATEST)

    return Starlette(
        routes=[Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", metrics)],
        exception_handlers={UserError: _unread},
    )


def _unread(request: Request, error: Exception) -> Response:
    return PlainTextResponse(str(error), 503)
