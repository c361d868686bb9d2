"""Commands as jobs of a cluster, through submitit (the extra ``[cluster]``)."""

from __future__ import annotations

import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from submitit import Job as Submitted
from submitit import LocalExecutor, SlurmExecutor
from submitit.core.utils import FailedSubmissionError, UncompletedJobError
from submitit.slurm.slurm import SlurmInfoWatcher, SlurmJob

from scripts import child_environment
from scripts.commands.launch import Launch, Started
from scripts.utils.errors import UserError

_SECONDS_BETWEEN_LOOKS = 0.2
_SECONDS_BETWEEN_QUESTIONS = 30
_SECONDS_TO_APPEAR = 5
PARTS = ("executor", "tries", "ask")


class QueueWatcher(SlurmInfoWatcher):
    """Asks ``squeue`` which jobs there are: ``sacct``, which submitit asks, needs a data base that small ones lack."""

    def _make_command(self) -> list[str]:
        return ["squeue", "--me", "--noheader", "--format=%A"]

    def read_info(self, string: bytes | str) -> dict[str, dict[str, str]]:
        """Return the state of each job that was submitted here: ``RUNNING`` while it is queued or runs."""
        queued = set((string if isinstance(string, str) else string.decode()).split())
        return {job: {"State": "RUNNING" if job in queued else "ENDED"} for job in self._registered}


class QueuedJob(SlurmJob[int]):
    """A job of Slurm, whose end is seen without accounting."""

    watcher = QueueWatcher(delay_s=_SECONDS_BETWEEN_QUESTIONS)


class QueueExecutor(SlurmExecutor):
    """Slurm, with or without accounting."""

    job_class = QueuedJob


EXECUTORS = {"slurm": QueueExecutor, "local": LocalExecutor}


class Resubmitted(Started):
    """A command that is submitted again when its job dies: ended by a signal, or gone without an exit status.

    Args:
        submit: submits it, and returns the job.
        tries: how often, at most.
        log: is told why a job died.
    """

    def __init__(self, submit: Callable[[], Submitted[int]], tries: int, log: Path) -> None:
        self._submit, self._left, self._log = submit, tries, log
        self._stopped = False
        self._status: int | None = None
        self._submit_once_more()

    def _submit_once_more(self) -> None:
        self._job, self._gone = self._submit(), float("inf")
        self._left -= 1

    def poll(self) -> int | None:
        """Return the exit status, or ``None`` while a job runs or waits."""
        if self._status is None and self._job.done() and (status := self._ended_with()) is not None:
            if _of_signal(status) and self._left > 0 and not self._stopped:
                self._submit_once_more()
            else:
                self._status = status
        return self._status

    def terminate(self) -> None:
        """Cancel the job, for good."""
        self._stopped = True
        if self.poll() is None:
            self._job.cancel(check=False)

    def kill(self) -> None:
        """Cancel once more: the cluster itself kills what does not end."""
        self._job.cancel(check=False)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the exit status."""
        deadline = time.monotonic() + (float("inf") if timeout is None else timeout)
        while (status := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(f"job {self._job.job_id}", timeout or 0)
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        return status

    def _ended_with(self) -> int | None:
        """Return the exit status; ``None``: none is seen yet, which on a shared disk says little for some seconds."""
        now = time.monotonic()
        self._gone = min(self._gone, now)
        if self._stopped:
            return -signal.SIGTERM
        if not self._job.paths.result_pickle.exists() and now - self._gone < _SECONDS_TO_APPEAR:
            return None
        if self._job.paths.result_pickle.exists():
            with suppress(UncompletedJobError):
                return self._job.result()
        with self._log.open("a", encoding="utf-8") as log:
            log.write(f"job {self._job.job_id} died: see {self._job.paths.stderr}\n")
        return -signal.SIGKILL


def _of_signal(status: int) -> bool:
    """Say whether a signal has ended a command; one that ends in order then says 128 and more, as shells do."""
    return status < 0 or status > 128


def jobs_of(page: Mapping[str, Any], threads: int | None, folder: Path, name: Path) -> Launch:
    """Return what starts commands as jobs.

    Args:
        page: as those of ``configs/clusters``.
        threads: of each command; ``None``: the processors that the page asks for.
        folder: gets what the jobs leave.
        name: of the page, for messages.

    Raises:
        UserError: when the cluster is not there, or the page means nothing to it.
    """
    if missing := [part for part in PARTS if part not in page]:
        raise UserError(f"{name} lacks {', '.join(missing)}: it needs what configs/clusters/slurm.yaml has")
    if page["executor"] not in EXECUTORS:
        raise UserError(f"{name} names the executor {page['executor']}: choose one of {', '.join(EXECUTORS)}")
    threads = threads or page["ask"].get("cpus_per_task", 1)
    try:
        executor = EXECUTORS[page["executor"]](folder)
        executor.update_parameters(**{**page["ask"], "cpus_per_task": threads})
    except (RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"jobs of {name} cannot be submitted ({' '.join(str(error).split())})") from error
    # a job has the variables of its own node: only what differs is given
    variables = [f"PYTHONPATH={child_environment()['PYTHONPATH']}", f"OMP_NUM_THREADS={threads}"]

    def launch(words: Sequence[str], log: Path) -> Started:
        log.touch()  # a job may wait for hours before it writes
        line = f"exec env {shlex.join([*variables, *words])} >>{shlex.quote(str(log))} 2>&1 </dev/null"

        def submit() -> Submitted[int]:
            try:
                return executor.submit(subprocess.call, line, shell=True)
            except (FailedSubmissionError, UncompletedJobError) as error:
                raise UserError(f"{name.stem} took no job: {str(error).strip().splitlines()[-1]}") from error

        return Resubmitted(submit, page["tries"], log)

    return launch
