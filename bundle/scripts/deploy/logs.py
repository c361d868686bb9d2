"""What the doors write down: lines for people, or a JSON object a line for what collects them."""

from __future__ import annotations

import json
import logging
import secrets
from contextvars import ContextVar
from datetime import UTC, datetime

from scripts.utils.errors import fault

DATED = "%(asctime)s %(levelname)s %(message)s"
_request: ContextVar[str | None] = ContextVar("request", default=None)


def begin_request() -> str:
    """Give what follows in this thread, or task, an id by which its lines are found, and return it.

    The id is made here: one that a caller sends could name a patient.
    """
    name = secrets.token_hex(8)
    _request.set(name)
    return name


class JsonFormatter(logging.Formatter):
    """A record as a JSON object in one line: time (UTC), level, logger, message, and the request that it belongs to.

    Of an exception its kind and place are written, not its words, which may quote a file.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"time": time, "level": record.levelname, "logger": record.name, "message": record.getMessage()}
        if (request := _request.get()) is not None:
            line["request"] = request
        if record.exc_info and isinstance(record.exc_info[1], Exception):
            line["fault"] = fault(record.exc_info[1])
        return json.dumps(line)


class Log:
    """How a door writes its log.

    Args:
        as_json: a JSON object a line.
    """

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json

    def begin(self) -> None:
        """Write so from now on, to wherever the log goes (``configs/logging.conf``)."""
        if self.as_json:
            for handler in logging.getLogger().handlers:
                handler.setFormatter(JsonFormatter())

    def formatter(self) -> logging.Formatter:
        """Return what writes a line of a file."""
        return JsonFormatter() if self.as_json else logging.Formatter(DATED)
