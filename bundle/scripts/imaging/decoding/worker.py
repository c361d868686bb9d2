"""The child process: reads requests, one JSON line each, and answers with a JSON line and the picture's bytes.

``python -m scripts.imaging.decoding.worker`` is started by :class:`scripts.imaging.decoding.process.Decoder`. Nothing
that a decoder or a library prints leaves the process, since it might quote a patient's name from the file.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import sys
import warnings
from contextlib import suppress
from typing import Any, BinaryIO

import numpy as np

from scripts.imaging.decoding.dicom import (
    describe_dicom,
    dicom_values,
    forbid_other_decoders,
    read_dicom,
    read_header,
)
from scripts.imaging.decoding.kinds import Kind, kind_of
from scripts.imaging.decoding.nifti import describe_nifti, nifti_values, read_nifti
from scripts.imaging.decoding.pictures import picture_rgb
from scripts.imaging.decoding.presentation import Presentation, make_presentation
from scripts.imaging.decoding.reasons import ImageRefused, Reason, Refusal

MEMORY = 2 * 10**9
"""Bytes of address space that decoding may take."""

READ = {"dicom": read_dicom, "nifti": read_nifti}
MEASURED = {"dicom": dicom_values, "nifti": nifti_values}


def answer(request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Do what a request asks for.

    Args:
        request: ``path``, ``presentation``, and ``picture`` with ``bits`` (8: 0..255, 32: float32 0..1), ``plain`` for
            a file that is neither DICOM nor NIfTI, ``values`` (a picture) for what was measured, or ``key`` for a
            description; with none, the header is meant.

    Returns:
        The answer: ``shape`` with the picture's bytes, a ``description``, a ``header``, or the ``reason`` of a refusal;
        of a picture that is refused the words too.
    """
    path, presentation = request["path"], make_presentation(request["presentation"])
    try:
        if "plain" in request:
            return _picture(path)
        if not os.path.isfile(path):
            raise Refusal(Reason.MISSING)
        kind = kind_of(path)
        if kind is None:
            raise Refusal(Reason.UNREADABLE)
        if "key" in request:
            return {"description": _description(kind, request, presentation)}, b""
        if "values" in request:
            found = MEASURED[kind](path, request["values"], presentation)
            return {"shape": found.steps.shape, "numbers": found.numbers()}, found.steps.tobytes()
        if "picture" not in request:
            return {"header": read_header(path, presentation)}, b""
        pixels = READ[kind](path, request["picture"], presentation)
        if not np.isfinite(pixels).all():
            raise Refusal(Reason.NON_FINITE)
        if request["bits"] == 8:
            pixels = np.rint(pixels * np.float32(255)).astype(np.uint8)
        return {"shape": pixels.shape}, pixels.tobytes()
    except Refusal as refusal:
        return {"reason": refusal.reason}, b""
    except MemoryError:
        return {"reason": Reason.TOO_LARGE}, b""
    except (OSError, RecursionError):
        return {"reason": Reason.UNREADABLE}, b""


def _picture(path: str) -> tuple[dict[str, Any], bytes]:
    try:
        pixels = picture_rgb(path)
    except ImageRefused as refusal:
        return {"refused": str(refusal), "because": refusal.reason}, b""
    return {"shape": pixels.shape}, pixels.tobytes()


def _description(kind: Kind, request: dict[str, Any], presentation: Presentation) -> dict[str, Any]:
    if kind == "nifti":
        return describe_nifti(request["path"], presentation)
    return describe_dicom(request["path"], bytes.fromhex(request["key"]), presentation)


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer until the other side closes."""
    answers.write(b"\n")  # ready
    answers.flush()
    for line in requests:
        head, pixels = answer(json.loads(line))
        answers.write(json.dumps({**head, "bytes": len(pixels)}).encode() + b"\n" + pixels)
        answers.flush()


def main() -> None:
    """Set the limits and serve."""
    with suppress(ValueError, OSError):  # a limit that is lower already stays
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a dump would hold the patient's data
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, sys.stdout.fileno())
    os.dup2(silence, sys.stderr.fileno())
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    forbid_other_decoders()
    serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
