"""Trainings: processes of their own, which outlive the service. What is known of them is on disk."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

from scripts import child_environment
from scripts.deploy.service.background import DONE, ERROR, RUNNING, STOPPED, new_task, now
from scripts.deploy.service.images import ImageStore, require_class_name
from scripts.deploy.service.problems import Cause, Problem, unknown
from scripts.deploy.service.worklist import classes_given
from scripts.deploy.versions.store import Version, VersionStore
from scripts.utils.errors import UserError
from scripts.utils.files import WEIGHTS, write_atomically
from scripts.utils.sums import file_sha256

COMMAND = "scripts.commands.learn"
TASK, ORDER, PROGRESS, LOG, OUTCOME, LOCK, RUN = (
    *("task.json", "order.json", "progress.json", "train.log", "outcome.json", "lock", "run"),
)
FIRST = "first"
LINES = 20
PATIENCE = 10.0
"""Seconds that a training has to end once it is asked to."""
KILLED = "it ended without a word (killed, or the machine was switched off): start it again, and it goes on"


class Trainings:
    """Starts trainings, and says how they stand.

    Each has a folder: ``order.json`` says what is to be learnt, ``run`` is what the training writes, ``task.json`` how
    it stood when it was last looked at, ``outcome.json`` how it ended. For as long as its process lives it holds the
    lock of the folder, which holds its process id: no other process is ever taken for it. The same order goes into the
    same folder, and so a training that was stopped goes on, and one that was refused may face another gate.

    Args:
        folder: holds their folders.
        images: to learn from.
        versions: goes on from the version that is served, and takes the new one in.
        run: folder of the run that the first versions are of, where it is known.
        gate: what a version must pass; see :class:`scripts.deploy.versions.gate.Gate`.
        settings: keys of the training's config over those of the version that is gone on from.
    """

    def __init__(
        self,
        folder: str | Path,
        images: ImageStore,
        versions: VersionStore,
        run: str | None,
        gate: Mapping[str, float],
        settings: Mapping[str, Any],
    ) -> None:
        self.folder = Path(folder).absolute()
        self.images = images
        self.versions = versions
        self.gate = dict(gate)
        self.settings = dict(settings)
        self._access = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        if run is not None:
            _link(self.folder / FIRST / RUN, Path(run).absolute())

    def start(self, request: Mapping[str, Any], by: str) -> dict[str, Any]:
        """Start to learn what images are labelled with and the served version does not know.

        A class with too few images is left out, and named in ``left_out`` of the request that is returned, unless it
        was asked for by name.

        Args:
            request: ``classes`` names those that are to be learnt now, ``max_epochs`` the epochs of the main stage.
            by: who orders it, and promotes what passes the gate.

        Returns:
            How it stands.

        Raises:
            Problem: 409 where there is nothing to learn, too little to learn from, nothing to go on from, or no code
                that learns; 422 for a request that means nothing; 429 while one runs.
        """
        if find_spec(COMMAND) is None:
            message = "this bundle was packaged for deployment alone: learn where the whole one is"
            raise Problem(409, message, Cause.DEPLOYED_ALONE)
        classes, epochs = _wishes(request)
        with self._access:
            if self.running():
                raise Problem(429, "a training is running: wait, or stop it", Cause.AT_WORK)
            order, waiting = self._order(classes, epochs)
            digest = hashlib.sha256(json.dumps(order, sort_keys=True).encode()).hexdigest()
            folder = self.folder / digest[:16]
            write_atomically(folder / ORDER, json.dumps({**order, "gate": self.gate, "by": by}, indent=1) + "\n")
            write_atomically(folder / PROGRESS, json.dumps({"stage": "starting"}))
            for name in (OUTCOME, LOG):
                (folder / name).unlink(missing_ok=True)
            wishes = {"classes": order["classes"], "max_epochs": epochs, "images": len(order["training"])}
            wishes["left_out"] = waiting
            task = new_task({"model": self.versions.version(order["version"]).record["name"], "by": by, **wishes})
            with _held(folder / LOCK) as lock:
                write_atomically(folder / TASK, json.dumps(task))
                self._process = _spawn(folder, lock)
        return self._described(folder)

    def tasks(self) -> list[dict[str, Any]]:
        """Return all, oldest first."""
        if self._process is not None:
            self._process.poll()  # so that it does not stay a zombie
        found = [self._described(path.parent) for path in self.folder.glob(f"*/{TASK}")]
        return sorted(found, key=lambda task: (task["start_ts"], task["status"] == RUNNING))

    def running(self) -> bool:
        """Say whether one runs."""
        return any(task["status"] == RUNNING for task in self.tasks())

    def status(self, check_if_running: bool = False) -> dict[str, Any]:
        """Return how the last one stands.

        Raises:
            Problem: 404, there was none, or none runs.
        """
        found = [task for task in self.tasks() if not check_if_running or task["status"] == RUNNING]
        if not found:
            raise unknown("training that is running" if check_if_running else "training")
        return found[-1]

    def stop(self) -> dict[str, Any] | None:
        """Stop the one that runs, and return how it stands; nothing where none runs."""
        with self._access:
            for folder in [path.parent for path in self.folder.glob(f"*/{TASK}")]:
                if _is_held(folder / LOCK):
                    _end(folder / LOCK)
                    if not (folder / OUTCOME).is_file():
                        write_atomically(folder / OUTCOME, json.dumps({"status": STOPPED, "result": None}))
                    return self._described(folder)
        return None

    def learnt_from(self, image: str) -> bool:
        """Say whether a training that runs, or ended well, learns from an image."""
        folders = [path.parent for path in self.folder.glob(f"*/{TASK}")]
        learnt = [_read(folder / ORDER) for folder in folders if self._described(folder)["status"] in (RUNNING, DONE)]
        return any(Path(item["image"]).stem == image for order in learnt for item in order["training"])

    def _described(self, folder: Path) -> dict[str, Any]:
        """Return how a training stands; what has ended is written down."""
        task = _read(folder / TASK)
        if task["status"] == RUNNING and not _is_held(folder / LOCK):
            task |= _read(folder / OUTCOME) or {"status": ERROR, "result": {"promoted": False, "reason": KILLED}}
            task.setdefault("end_ts", now())
            write_atomically(folder / TASK, json.dumps(task))
        return {**task, "progress": _read(folder / PROGRESS), "details": _tail(folder / LOG)}

    def _order(self, classes: list[str] | None, epochs: int | None) -> tuple[dict[str, Any], list[str]]:
        """Return what is to be learnt, and the classes that still wait for images of a second patient."""
        served = self.versions.promoted()
        if served is None:
            raise Problem(409, "no version is served: there is nothing to go on from", Cause.NO_VERSION)
        given = {one["label"]: one for one in classes_given(self.images.listed(), served.classes) if not one["known"]}
        asked = sorted(given) if classes is None else classes
        if not asked:
            message = "no image is labelled with a class that the served version does not know"
            raise Problem(409, message, Cause.NOTHING_NEW)
        few = [name for name in asked if name not in given or given[name]["missing"]]
        wanted = [name for name in asked if name not in few]
        if not wanted or (few and classes is not None):
            message = f"too few images to learn {few[0]}: a class needs two of two patients, to learn from and to test"
            raise Problem(409, message, Cause.TOO_FEW, label=few[0])
        images = {one.image: one for one in self.images.listed() if one.label in wanted}
        training = [
            {"image": self.images.path(image).name, "label": one.label, "group": one.group}
            for image, one in sorted(images.items())
        ]
        order = {
            "version": served.number,
            "previous": str(self._run_of(served)),
            "store": self.versions.place,
            "images": str(self.images.folder),
            "classes": wanted,
            "training": training,
            "settings": {**self.settings, **({} if epochs is None else {"adapter_epochs": epochs})},
        }
        return order, few

    def _run_of(self, version: Version) -> Path:
        """Return the run whose model a version is."""
        for run in self.folder.glob(f"*/{RUN}"):
            weights = run / WEIGHTS
            if weights.is_file() and file_sha256(weights) == version.record["files"][WEIGHTS]:
                return run.resolve()
        raise Problem(
            409,
            f"the run of version {version.number} is not at hand, or has learnt more since: start the service with its "
            "folder (key 'run_dir')",
            Cause.RUN_AWAY,
            version=version.number,
        )


def _wishes(request: Mapping[str, Any]) -> tuple[list[str] | None, int | None]:
    classes, epochs = request.get("classes"), request.get("max_epochs")
    if classes is not None and not (
        isinstance(classes, list) and classes and all(isinstance(name, str) for name in classes)
    ):
        raise Problem(422, "classes must be a list of names")
    for name in classes or []:
        require_class_name(name)
    if epochs is not None and (not isinstance(epochs, int) or isinstance(epochs, bool) or not 0 < epochs <= 1000):
        raise Problem(422, "max_epochs must be a whole number from 1 to 1000", Cause.EPOCHS)
    return None if classes is None else sorted(set(classes)), epochs


def _spawn(folder: Path, lock: BinaryIO) -> subprocess.Popen[bytes]:
    """Start the process, which inherits the lock, and note its id there."""
    with (folder / LOG).open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", COMMAND, str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=child_environment(),
            pass_fds=[lock.fileno()],
            start_new_session=True,  # a signal to the service does not reach it
        )
    lock.write(str(process.pid).encode())
    lock.flush()
    return process


def _held(path: Path) -> BinaryIO:
    """Open a file and lock it, for as long as it, or what inherited it, is open."""
    file = path.open("wb")
    fcntl.flock(file, fcntl.LOCK_EX)  # who looks whether it is held holds it for a moment
    return file


def _is_held(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _end(lock: Path) -> None:
    """End the process that holds a lock, and all that it started."""
    process = int(lock.read_text() or 0)
    deadline = time.monotonic() + PATIENCE
    for number, until in ((signal.SIGTERM, deadline), (signal.SIGKILL, deadline + PATIENCE)):
        with suppress(ProcessLookupError):
            os.killpg(process, number)
        while _is_held(lock):
            if time.monotonic() > until:
                break
            time.sleep(0.05)
        else:
            return
    raise UserError("the training does not end: end its process by hand")


def _link(link: Path, target: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink() or link.readlink() != target:
        link.unlink(missing_ok=True)
        link.symlink_to(target)


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return {}


def _tail(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return [line.rstrip("\n") for line in deque(file, LINES)]
    except FileNotFoundError:
        return []
