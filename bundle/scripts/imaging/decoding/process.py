"""The near side of the child process that decodes: whatever a file does to it, there is a picture or a reason."""

from __future__ import annotations

import json
import math
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
import weakref
from contextlib import suppress
from typing import Any

import numpy as np

from scripts import child_environment
from scripts.imaging.decoding.presentation import Presentation
from scripts.imaging.decoding.reasons import ImageRefused, Reason, Refusal
from scripts.imaging.decoding.values import Values
from scripts.utils.errors import UserError

START_SECONDS = 120.0
"""A process that is not ready by then never will be."""

_CHUNK = 1 << 20
_WORTH_NOTING = 0.1  # seconds
_FILES_NOTED = 10_000


class _Patience:
    """How many seconds are left for a file, whichever thread asks.

    What describing a file took is no longer there for its picture, and a file that was too slow is not tried again. An
    answer to a request for a picture settles the file: the next one has all the time again.
    """

    def __init__(self) -> None:
        self._spent: dict[tuple[str, int], float] = {}  # without a lock, which a fork could copy while it is held

    def left(self, file: tuple[str, int], seconds: float) -> float:
        return seconds - self._spent.get(file, 0.0)

    def spend(self, file: tuple[str, int], seconds: float) -> None:
        self._spent[file] = self._spent.pop(file, 0.0) + seconds
        for oldest in list(self._spent)[:-_FILES_NOTED]:
            self._spent.pop(oldest, None)

    def settle(self, file: tuple[str, int]) -> None:
        self._spent.pop(file, None)


_patience = _Patience()


class Decoder:
    """One child process that decodes file after file; it starts with the first and is replaced when it dies.

    For one thread of one process: see :func:`decoder`.
    """

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None

    def read(self, path: str, picture: str, presentation: Presentation, bits: int = 8) -> np.ndarray:
        """Decode a picture.

        Args:
            path: a DICOM or NIfTI file.
            picture: see :func:`scripts.imaging.decoding.presentation.make_reference`.
            presentation: how it is shown.
            bits: 8 for uint8 0..255, 32 for float32 0..1.

        Returns:
            ``[H, W]`` or ``[H, W, 3]``, rows first; of a whole volume ``[X, Y, Z]``.

        Raises:
            Refusal: with the reason.
        """
        head, pixels = self._ask({"path": path, "picture": picture, "bits": bits}, presentation)
        kind = np.dtype(np.uint8 if bits == 8 else np.float32)
        shape = [int(length) for length in head["shape"]]
        if len(pixels) != math.prod(shape) * kind.itemsize:
            raise Refusal(Reason.DECODER_DIED)
        return np.frombuffer(pixels, kind).reshape(shape)

    def picture(self, path: str) -> np.ndarray:
        """Decode a picture that is neither DICOM nor NIfTI to uint8 ``[H, W, 3]``.

        Raises:
            ImageRefused: with the reason, in words that name the file.
            Refusal: with the reason.
        """
        head, pixels = self._ask({"path": path, "plain": True}, Presentation())
        if "refused" in head:
            raise ImageRefused(head["refused"], Reason(head["because"]))
        return np.frombuffer(pixels, np.uint8).reshape(head["shape"])

    def values(self, path: str, picture: str, presentation: Presentation) -> Values:
        """Read what was measured, for who looks at it; see ``dicom_values`` and ``nifti_values``.

        Raises:
            Refusal: with the reason.
        """
        head, content = self._ask({"path": path, "values": picture}, presentation)
        steps = np.frombuffer(content, np.uint16)
        if steps.size != math.prod(head["shape"]):
            raise Refusal(Reason.DECODER_DIED)
        return Values(steps.reshape(head["shape"]), **head["numbers"])

    def describe(self, path: str, key: bytes, presentation: Presentation) -> dict[str, Any]:
        """Say what a file holds; see ``describe_dicom`` and ``describe_nifti``.

        Raises:
            Refusal: with the reason.
        """
        return dict(self._ask({"path": path, "key": key.hex()}, presentation)[0]["description"])

    def header(self, path: str, presentation: Presentation) -> dict[str, Any]:
        """Return what a result repeats of a DICOM file's header, patient and study included; see ``read_header``.

        Raises:
            Refusal: with the reason.
        """
        return dict(self._ask({"path": path}, presentation)[0]["header"])

    def close(self) -> None:
        """End the child process."""
        if self._child is not None:
            _end(self._child)
        self._child = None

    def _ask(self, request: dict[str, Any], presentation: Presentation) -> tuple[dict[str, Any], bytearray]:
        request = {**request, "path": os.path.abspath(request["path"]), "presentation": presentation.options()}
        file = _version(request["path"])
        left = _patience.left(file, presentation.seconds)
        if left <= 0:
            raise Refusal(Reason.TOO_SLOW)
        if self._child is None or self._child.poll() is not None:
            self._start()
        started = time.monotonic()
        try:
            head, pixels = self._exchange(json.dumps(request).encode() + b"\n", left)
        except TimeoutError:
            self.close()
            _patience.spend(file, left)
            raise Refusal(Reason.TOO_SLOW) from None
        except (OSError, ValueError, KeyError, TypeError):
            self.close()
            _patience.spend(file, time.monotonic() - started)
            raise Refusal(Reason.DECODER_DIED) from None
        except BaseException:  # Ctrl-C: what is still in the pipe must not answer the next request
            self.close()
            raise
        if {"picture", "plain", "values"} & request.keys():
            _patience.settle(file)
        elif (spent := time.monotonic() - started) > _WORTH_NOTING:
            _patience.spend(file, spent)
        if "reason" in head:
            raise Refusal(Reason(head["reason"]))
        return head, pixels

    def _start(self) -> None:
        self.close()
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        # its own session: Ctrl-C is the caller's business, and what it starts (dcmdjpeg) ends with it
        child = subprocess.Popen(
            [sys.executable, "-m", "scripts.imaging.decoding.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=child_environment(**threads),
            start_new_session=True,
            bufsize=0,
        )
        self._child = child
        weakref.finalize(self, _end_own, child, os.getpid())
        try:
            self._receive(1, bytearray(), time.monotonic() + START_SECONDS)
        except OSError:
            self.close()
            raise UserError(
                "the process that decodes DICOM and NIfTI does not start: check that pydicom and nibabel are installed"
            ) from None

    def _exchange(self, request: bytes, seconds: float) -> tuple[dict[str, Any], bytearray]:
        assert self._child is not None and self._child.stdin is not None
        deadline = time.monotonic() + seconds
        self._child.stdin.write(request)
        received = bytearray()
        while b"\n" not in received:
            self._receive(len(received) + 1, received, deadline)
        line, _, pixels = received.partition(b"\n")
        head = json.loads(line)
        return head, self._receive(int(head["bytes"]), pixels, deadline)

    def _receive(self, size: int, received: bytearray, deadline: float) -> bytearray:
        """Read until ``received`` holds ``size`` bytes."""
        assert self._child is not None and self._child.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._child.stdout, selectors.EVENT_READ)
            while len(received) < size:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise TimeoutError
                chunk = os.read(self._child.stdout.fileno(), _CHUNK)
                if not chunk:
                    raise BrokenPipeError
                received += chunk
        return received


def _version(path: str) -> tuple[str, int]:
    """Return what tells a file from others, and from what it was before; the worker says that it is missing."""
    try:
        return path, os.stat(path).st_mtime_ns
    except OSError:
        return path, 0


_own = threading.local()


def decoder() -> Decoder:
    """Return this thread's decoder; a process made by ``fork`` gets its own."""
    if getattr(_own, "process", None) != os.getpid():
        _own.process, _own.decoder = os.getpid(), Decoder()
    found: Decoder = _own.decoder
    return found


def _end_own(child: subprocess.Popen[bytes], owner: int) -> None:
    """End the child unless this process only inherited it."""
    if os.getpid() == owner:
        _end(child)


def _end(child: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    for stream in (child.stdin, child.stdout):
        if stream is not None:
            stream.close()
