"""What a file is, by its content: names say little, and DICOM files often have no suffix."""

from __future__ import annotations

import gzip
import os
import zlib
from typing import Literal

Kind = Literal["dicom", "nifti"]

_NIFTI_1, _NIFTI_2 = (b"n+1\0", b"ni1\0"), (b"n+2\0", b"ni2\0")
_HEAD = 352


def kind_of(path: str) -> Kind | None:
    """Return what a file is; ``None`` for anything else, or where nothing can be read (a pipe would have us wait).

    DICOM: ``DICM`` at byte 128, or a first tag of group 0002 or 0008 (files without preamble), or the suffix ``.dcm``.
    NIfTI: the magic of version 1 or 2, also within gzip, or the suffix ``.nii`` or ``.nii.gz``: a file that is broken
    at its head is then refused as what it is called.
    """
    if not os.path.isfile(path):
        return None
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return None
    if head[:2] == b"\x1f\x8b":
        head = _unzipped(path)
    if head[128:132] == b"DICM" or (head[:2] in (b"\x02\x00", b"\x08\x00") and head[3:4] == b"\0"):
        return "dicom"
    if head[344:348] in _NIFTI_1 or head[4:8] in _NIFTI_2:
        return "nifti"
    name = path.lower()
    if name.endswith((".nii", ".nii.gz")):
        return "nifti"
    return "dicom" if name.endswith((".dcm", ".dicom")) else None


def _unzipped(path: str) -> bytes:
    try:
        with gzip.open(path) as file:
            return file.read(_HEAD)
    except (OSError, EOFError, zlib.error):
        return b""
