"""How the node fares, over HTTP: for what starts it again, and for who watches it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from scripts.deploy.http import listening, make_server
from scripts.deploy.queue import State
from scripts.utils.errors import UserError

CONNECTIONS, IDLE_SECONDS = 20, 5
"""Those who watch are few, and quick."""

Told = Callable[[], tuple[str | None, dict[State, int]]]
"""Returns why nothing goes on, if so, and how many images are in each state; a UserError is a reason too."""


class Health:
    """Answers ``/healthz`` (the process lives) and ``/readyz`` (images are classified and results arrive).

    Args:
        host: address to listen on.
        port: 0 for any that is free; ``port`` says which, once it runs.
    """

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port
        self._logger = logging.getLogger(__name__)

    @contextmanager
    def answering(self, state: Told) -> Iterator[None]:
        """Answer until the end of the block.

        Raises:
            UserError: the address is not to be had.
        """
        with listening(self.host, self.port, "health_port") as listener:
            self.port = int(listener.getsockname()[1])
            server = make_server(_application(state), CONNECTIONS, IDLE_SECONDS)
            thread = threading.Thread(target=server.run, args=([listener],), name="health", daemon=True)
            thread.start()
            self._logger.info("Saying how it fares on http://%s:%d/readyz.", self.host, self.port)
            try:
                yield
            finally:
                server.should_exit = True
                thread.join()


def _application(state: Told) -> Starlette:
    def healthz(request: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    def readyz(request: Request) -> JSONResponse:
        try:
            trouble, counts = state()
        except UserError as error:
            trouble, counts = str(error), {}
        content = {"status": "ready" if trouble is None else "not ready", "detail": trouble, "images": counts}
        return JSONResponse(content, 200 if trouble is None else 503)

    return Starlette(routes=[Route("/healthz", healthz), Route("/readyz", readyz)])
