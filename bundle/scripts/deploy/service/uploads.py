"""A file that was sent, as the decoders want it: with a path, and yet on no disk."""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from scripts.deploy.inference.classification import ImageClassifier, refusal_in
from scripts.imaging.decoding.reasons import ImageRefused, Reason
from scripts.imaging.decoding.scans import is_scan
from scripts.imaging.transforms.npz import close_npz, npz_images, npz_names
from scripts.utils.errors import UserError

NPZ = ".npz"
_SUFFIXES = (".nii.gz", ".nii", NPZ, ".npy", ".dcm", ".dicom")
_IMAGES = "_images"
_CHUNK = 2**20


@contextmanager
def as_file(content: BinaryIO, name: str) -> Iterator[str]:
    """Give a path to bytes for as long as they are needed.

    The bytes stay in memory: what is on disk is a link to them. Of the name, only a suffix that says what the file is
    goes into the link's.

    Args:
        content: of the file.
        name: as the caller calls it.
    """
    suffix = next((known for known in _SUFFIXES if name.lower().endswith(known)), "")
    with tempfile.TemporaryDirectory() as folder, os.fdopen(os.memfd_create("upload"), "wb") as file:
        shutil.copyfileobj(content, file, _CHUNK)
        file.flush()
        link = Path(folder, f"upload{suffix}")
        link.symlink_to(f"/proc/{os.getpid()}/fd/{file.fileno()}")
        try:
            yield str(link)
        finally:
            close_npz(str(link))


def pictures_of(file: str, classifier: ImageClassifier, max_bytes: int, number: int | None = None) -> list[str]:
    """Return references to the pictures of a file.

    Args:
        file: its path.
        classifier: says which pictures of a DICOM or NIfTI file count.
        max_bytes: of the arrays of an npz file, unpacked.
        number: of the picture that was asked for, if any: then all frames or slices of a file count.

    Raises:
        ImageRefused: an npz file is broken, or its arrays are too large.
    """
    if not file.endswith(NPZ):
        if number is not None and is_scan(file):
            return replace(classifier.selection, pictures="all").references(file)[0]
        return classifier.pictures(file)
    try:
        with zipfile.ZipFile(file) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > max_bytes:
            raise ImageRefused("", Reason.TOO_LARGE)
        splits = [name.removesuffix(_IMAGES) for name in npz_names(file) if name.endswith(_IMAGES)]
        return [f"{file}#{split}/{number}" for split in splits for number in range(len(npz_images(file, split)))]
    except UserError as error:
        raise refusal_in(error) or error from None
    except Exception:  # what zipfile raises on a broken file, names that are no text among it
        raise ImageRefused("", Reason.UNREADABLE) from None


def chosen(pictures: list[str], number: int | None) -> str:
    """Return the picture that counts: the one of that number, from 0, or the only one.

    Raises:
        ImageRefused: there are several, or none of that number.
    """
    if number is None and len(pictures) != 1:
        raise ImageRefused("", Reason.MANY_PICTURES if pictures else Reason.NO_PIXELS)
    if number is not None and not 0 <= number < len(pictures):
        raise ImageRefused("", Reason.NO_SUCH_PICTURE)
    return pictures[number or 0]
