"""Work that goes on after it was answered, one piece of a kind at a time; MONAI Label's words for how it stands."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from scripts.deploy.service.problems import Cause, Problem, answer_to, unknown
from scripts.utils.errors import UserError, fault

RUNNING, DONE, ERROR, STOPPED = "RUNNING", "DONE", "ERROR", "STOPPED"

Work = Callable[[threading.Event], Mapping[str, Any]]
"""Does it, looking now and then at whether it is to stop, and returns what came of it."""


def new_task(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return a task as MONAI Label describes one."""
    return {"id": str(uuid.uuid4()), "status": RUNNING, "request": dict(request), "start_ts": now(), "details": []}


def now() -> str:
    """Return the time as MONAI Label writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")


class Background:
    """Does one kind of work.

    Args:
        kind: what it is called in answers.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._tasks: list[dict[str, Any]] = []
        self._pool = ThreadPoolExecutor(1, kind)
        self._access = threading.Lock()
        self._stop = threading.Event()

    def start(self, request: Mapping[str, Any], work: Work) -> dict[str, Any]:
        """Start, and return how it stands.

        Raises:
            Problem: 429, it is at work.
        """
        with self._access:
            if self.busy:
                raise Problem(429, f"{self.kind} is running already: wait, or stop it", Cause.AT_WORK)
            task = new_task(request)
            self._tasks = [*self._tasks[-9:], task]
            self._stop.clear()
            started = dict(task)
        self._pool.submit(self._do, task, work)
        return started

    @property
    def busy(self) -> bool:
        """Whether it is at work."""
        return bool(self._tasks) and self._tasks[-1]["status"] == RUNNING

    def status(self, check_if_running: bool = False) -> dict[str, Any]:
        """Return how the last one stands.

        Raises:
            Problem: 404, there was none, or it is over.
        """
        last = self._tasks[-1] if self._tasks else None
        if last is None or (check_if_running and last["status"] != RUNNING):
            raise unknown(f"{self.kind} that is running" if check_if_running else self.kind)
        return dict(last)

    def stop(self) -> dict[str, Any] | None:
        """Let it end early; return how it stands, or nothing where nothing runs."""
        self._stop.set()
        return dict(self._tasks[-1]) if self.busy else None

    def close(self) -> None:
        """Wait for what is at work, which is told to end."""
        self._stop.set()
        self._pool.shutdown()

    def _do(self, task: dict[str, Any], work: Work) -> None:
        try:
            task["result"] = dict(work(self._stop))
            status = STOPPED if self._stop.is_set() else DONE
        except UserError as error:
            task["details"], status = [answer_to(error)[1]["detail"]], ERROR
        except Exception as error:
            task["details"], status = [fault(error)], ERROR
        task["end_ts"] = now()
        task["status"] = status
