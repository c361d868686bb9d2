"""Where the processes of runs run: on this machine, or as jobs of a cluster."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from scripts import child_environment
from scripts.commands.configs import find_config, read_config
from scripts.utils.extras import of_extra

_SECONDS_TO_STOP = 30


class Started(Protocol):
    """A command that was started; its methods do what those of :class:`subprocess.Popen` do."""

    def poll(self) -> int | None:
        """Return the exit status, below 0 where a signal ended it, or ``None`` while it runs."""

    def terminate(self) -> None:
        """Ask it to end."""

    def kill(self) -> None:
        """End it, and all that it has started."""

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit status, or raise :class:`subprocess.TimeoutExpired` after so many seconds."""


Launch = Callable[[Sequence[str], Path], Started]
"""Starts a command, given its words and the log to which all that it prints is added."""


class Process(subprocess.Popen[bytes]):
    """A process in a session of its own: Ctrl-C reaches its parent alone, which then stops it once."""

    def kill(self) -> None:
        """End its session: processes that load images for it end, too."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


def here(threads: int) -> Launch:
    """Return what starts commands as processes of this machine, with so many threads each."""

    def launch(words: Sequence[str], log: Path) -> Started:
        environment = child_environment(OMP_NUM_THREADS=str(threads))
        with log.open("ab") as file:
            return Process(
                words, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment, start_new_session=True
            )

    return launch


def on_cluster(name: str, threads: int | None, folder: Path) -> Launch:
    """Return what starts commands as jobs of a cluster.

    Args:
        name: of a page in ``configs/clusters``, or a file like them.
        threads: of each command; ``None``: as the page says.
        folder: gets what the jobs leave; the nodes of the cluster see it, too.

    Raises:
        UserError: when submitit or the cluster is not there, or the page means nothing to it.
    """
    with of_extra("cluster", "jobs of a cluster need submitit"):
        from scripts.commands.cluster import jobs_of
    page = find_config("clusters", name)
    return jobs_of(read_config(page), threads, folder, page)


def stop(started: Sequence[Started]) -> None:
    """Ask what was started to end; what does not is killed, and loses at most an epoch."""
    for one in started:
        one.terminate()
    deadline = time.monotonic() + _SECONDS_TO_STOP
    for one in started:
        try:
            one.wait(max(deadline - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            one.kill()
            one.wait()
