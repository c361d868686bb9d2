"""The service's run, from its start to a signal."""

from __future__ import annotations

import logging
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from PIL import Image

from scripts.deploy.http import listening, make_server
from scripts.deploy.logs import Log
from scripts.deploy.service.application import make_application
from scripts.deploy.service.service import Service
from scripts.utils.files import cannot_write

LOG_BYTES, LOGS = 5_000_000, 3
FORMATS = ("PNG", "JPEG", "MPO", "JPEG2000", "BMP", "GIF", "PPM", "TIFF", "WEBP")
"""What Pillow opens: others it would hand to programs outside (EPS to Ghostscript)."""
MOST_PIXELS = 2**26
"""Of an image, at most: a small file may hold a large picture."""

logger = logging.getLogger(__name__)


def serve(service: Service, log: Log) -> None:
    """Answer until SIGTERM or Ctrl-C; requests at hand are finished first, a training goes on.

    Args:
        service: what is asked.
        log: how its log is written.

    Raises:
        UserError: the address is not to be had.
    """
    _prepare_libraries()
    with (
        listening(service.access.host, service.port) as listener,
        _writing_a_log(service.log, log.formatter()),
        _until_a_signal(),
    ):
        host, port = listener.getsockname()[:2]
        version = service.answering.classifier.model.version
        logger.info("Listening on http://%s:%d, version %s.", f"[{host}]" if ":" in host else host, port, version)
        server = make_server(make_application(service), service.limits.connections, service.limits.idle_seconds)
        server.run(sockets=[listener])
        service.close()
        logger.info("Stopped. A training that runs goes on.")


@contextmanager
def _writing_a_log(path: Path, formatter: logging.Formatter) -> Iterator[None]:
    try:
        handler = RotatingFileHandler(path, maxBytes=LOG_BYTES, backupCount=LOGS, encoding="utf-8")
    except OSError as error:
        raise cannot_write(path, error) from error
    handler.setFormatter(formatter)
    ours = logging.getLogger("scripts")
    ours.addHandler(handler)
    try:
        yield
    finally:
        ours.removeHandler(handler)
        handler.close()


def _prepare_libraries() -> None:
    """Let nothing be said that may quote a file, no other program open one, and no picture be too large to hold."""
    warnings.simplefilter("ignore")
    Image.init()
    Image.ID[:] = FORMATS
    Image.MAX_IMAGE_PIXELS = MOST_PIXELS // 2  # Pillow warns there, and refuses at twice as many


@contextmanager
def _until_a_signal() -> Iterator[None]:
    """Let a signal that uvicorn has acted on, and raises again, be the end of it."""
    before: dict[int, Any] = {
        number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
