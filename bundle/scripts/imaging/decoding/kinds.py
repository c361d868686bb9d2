"""What a file is, by its content: names say little, and DICOM files often have no suffix."""

from __future__ import annotations

import gzip
import os
import re
import zlib
from typing import Literal

Kind = Literal["dicom", "nifti"]

PICTURES = ("PNG", "JPEG", "JPEG 2000", "BMP", "GIF", "TIFF", "WebP")
"""What a picture may be; `scripts.imaging.decoding.pictures` reads them."""

_PICTURE_NAMES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".j2k", ".bmp", ".gif", ".tif", ".tiff", ".webp")
_PICTURE = re.compile(
    rb"\x89PNG\r\n|\xff\xd8\xff|\0\0\0\x0cjP  |\xff\x4f\xff\x51|BM.{4}\0\0\0\0|GIF8|II[*+]\0|MM\0[*+]|RIFF.{4}WEBP",
    re.DOTALL,
)
_NIFTI_1, _NIFTI_2 = (b"n+1\0", b"ni1\0"), (b"n+2\0", b"ni2\0")
_HEAD = 352


def kind_of(path: str) -> Kind | None:
    """Return what a file is; ``None`` for anything else, or where nothing can be read (a pipe would have us wait).

    DICOM: ``DICM`` at byte 128, or a first tag of group 0002 or 0008 (files without preamble), or the suffix ``.dcm``.
    NIfTI: the magic of version 1 or 2, also within gzip, or the suffix ``.nii`` or ``.nii.gz``: a file that is broken
    at its head is then refused as what it is called.
    """
    head = _head(path)
    if head is None:
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


def is_picture(path: str) -> bool:
    """Say whether a file is one of `PICTURES`, by its first bytes or its suffix: what is broken is refused, not missed.

    Files of the usual suffixes are not opened, so that a folder of a million images is listed fast.
    """
    return path.lower().endswith(_PICTURE_NAMES) or _PICTURE.match(_head(path) or b"") is not None


def _head(path: str) -> bytes | None:
    """Return how a file begins; ``None`` where nothing can be read."""
    if not os.path.isfile(path):
        return None
    try:
        with open(path, "rb") as file:
            return file.read(_HEAD)
    except OSError:
        return None


def _unzipped(path: str) -> bytes:
    try:
        with gzip.open(path) as file:
            return file.read(_HEAD)
    except (OSError, EOFError, zlib.error):
        return b""
