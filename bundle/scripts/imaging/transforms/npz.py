"""Arrays of npz files larger than memory: mapped where they lie, or unpacked once; never unpickled."""

from __future__ import annotations

import fcntl
import logging
import math
import os
import re
import shutil
import struct
import threading
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np

from scripts.utils.errors import UserError
from scripts.utils.files import write_atomically

HELD_BYTES = 2**29
"""Of all compressed arrays together: those that fit are held in memory, the others are unpacked beside their file."""

_CHUNK = 2**20
_COLOURS = 4  # an axis of so many may be one of colours
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a zip's member: signature, lengths of the name and of the extra field
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}

logger = logging.getLogger(__name__)


def npz_array(path: str, name: str) -> np.ndarray:
    """Return one array of an npz file, read-only, kept open for the next call; never unpickles.

    An uncompressed array is mapped where it lies in the file. A compressed one is held in memory where all that are
    held stay within `HELD_BYTES`; a larger one is unpacked once to ``<file>.<array>.<checksum>.npy`` beside the file
    and mapped from there, by later runs too. The file's checksum is verified before the array is first given out.

    Args:
        path: the npz file.
        name: of the array.

    Raises:
        UserError: where the file or the array is missing or broken, holds pickled objects, or cannot be unpacked; it
            names the file.
    """
    return _opened.get(path, name)


def close_npz(path: str) -> None:
    """Let go of the arrays of an npz file that will not be asked for again."""
    _opened.close(path)


def npz_names(path: str) -> list[str]:
    """Return the names of the arrays of an npz file.

    Raises:
        UserError: where the file is missing or broken; it names the file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _names(archive)
    except FileNotFoundError:
        raise UserError(f"data file {path} is missing: put it there, or give its right name") from None
    except Exception as error:  # zip's own errors and the system's: all mean that this is no npz file
        raise UserError(f"data file {path} cannot be read ({error}): it must be an npz file") from error


def npz_images(path: str, split: str) -> np.ndarray:
    """Return the images of a split as `npz_array` does: uint8 ``[N, H, W]`` (grey), ``[N, H, W, 3]`` or volumes.

    An axis of length 1 for the one channel, behind or before the sides, is dropped. Of two to four at its place nothing
    says whether they are colours or slices.

    Raises:
        UserError: as `npz_array`, and where the array holds something else.
    """
    images = _without_channel(npz_array(path, f"{split}_images"))
    if images.dtype == np.uint8 and images.shape[3:] != (3,) and images.ndim == 4 and 1 < images.shape[1] <= _COLOURS:
        count = images.shape[1]
        raise UserError(
            f"{split}_images of {path} is uint8 {list(images.shape)}, {count} colours or {count} slices: put colours "
            f"last (np.moveaxis(images, 1, -1)), and let volumes have more than {_COLOURS} slices"
        )
    known = images.ndim == 3 or images.shape[3:] == (3,) or holds_volumes(images)
    if images.dtype != np.uint8 or not known or 0 in images.shape[1:]:
        raise UserError(
            f"{split}_images of {path} is {images.dtype} {list(images.shape)}: "
            "it must be uint8 [N, H, W], [N, H, W, 3] or, for volumes, [N, D, H, W]"
        )
    return images


def holds_volumes(images: np.ndarray) -> bool:
    """Say whether an array that `npz_images` gives holds volumes, ``[N, D, H, W]``."""
    return images.ndim == 4 and images.shape[3] > _COLOURS


def _without_channel(images: np.ndarray) -> np.ndarray:
    """Return ``[N, H, W, 1]``, ``[N, 1, H, W]``, ``[N, D, H, W, 1]`` and ``[N, 1, D, H, W]`` without the 1."""
    if images.ndim in (4, 5):
        for axis in (images.ndim - 1, 1):
            if images.shape[axis] == 1:
                return images.squeeze(axis)
    return images


@dataclass(frozen=True)
class _Layout:
    """What the header of an array says; ``start`` is where its values begin."""

    start: int
    shape: tuple[int, ...]
    order: str
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def map(self, path: str | Path, offset: int) -> np.ndarray:
        """Return the array whose header begins at ``offset`` of a file."""
        start = offset + self.start
        if start + self.nbytes > os.path.getsize(path):
            raise ValueError("the file is cut off")
        mapped = np.memmap(path, self.dtype, "r", start, self.shape, self.order)  # type: ignore[call-overload]
        return mapped.view(np.ndarray)  # whose items are plain arrays, which cost less to make

    def load(self, file: IO[bytes]) -> np.ndarray:
        """Return the array whose values come next."""
        flat = np.frombuffer(_exactly(file, self.nbytes), self.dtype)
        return flat.reshape(self.shape, order=self.order)  # type: ignore[call-overload]


class _OpenArrays:
    """The arrays opened by this process; forked loaders share them. An npz file that changed is opened anew."""

    def __init__(self) -> None:
        self._arrays: dict[tuple[str, str], tuple[tuple[int, int], np.ndarray]] = {}
        self._lock = threading.Lock()

    def get(self, path: str, name: str) -> np.ndarray:
        try:
            found = os.stat(path)
        except OSError:
            raise UserError(f"data file {path} is missing: put it there, or give its right name") from None
        version = (found.st_size, found.st_mtime_ns)
        with self._lock:
            known = self._arrays.get((path, name))
            if known is None or known[0] != version:
                self._arrays.pop((path, name), None)
                known = self._arrays[path, name] = (version, self._open(path, name))
        return known[1]

    def close(self, path: str) -> None:
        with self._lock:
            self._arrays = {key: array for key, array in self._arrays.items() if key[0] != path}

    def _open(self, path: str, name: str) -> np.ndarray:
        try:
            with zipfile.ZipFile(path) as archive:
                found = _names(archive)
                if name in found and name.isidentifier():
                    return _read(archive, name, HELD_BYTES - self._held())
        except UserError:
            raise
        except Exception as error:  # zip, zlib, header and pickle errors: all mean that the array is not to be had
            raise UserError(f"array {name} of {path} cannot be read ({error}): it must be a plain array") from error
        raise UserError(f"data file {path} has no array {name}, only {', '.join(found)}: the MedMNIST layout is needed")

    def _held(self) -> int:
        return sum(array.nbytes for _, array in self._arrays.values() if not _is_mapped(array))


_opened = _OpenArrays()


def _names(archive: zipfile.ZipFile) -> list[str]:
    return [member.removesuffix(".npy") for member in archive.namelist() if member.endswith(".npy")]


def _is_mapped(array: np.ndarray) -> bool:
    return isinstance(array.base, np.memmap)


def _read(archive: zipfile.ZipFile, name: str, room: int) -> np.ndarray:
    member = archive.getinfo(f"{name}.npy")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"it is compressed by method {member.compress_type}, which NumPy does not write")
    with archive.open(member) as file:
        layout = _layout(file, member.file_size)
        if not layout.nbytes:
            return np.empty(layout.shape, layout.dtype)
        if member.compress_type == zipfile.ZIP_STORED:
            _exhaust(file)
            return layout.map(str(archive.filename), _offset(archive, member))
        if layout.nbytes <= room:
            array = layout.load(file)
            _exhaust(file)
            return array
    return layout.map(_unpacked(archive, member), 0)


def _layout(file: IO[bytes], size: int) -> _Layout:
    """Read the header of an array that takes ``size`` bytes with it."""
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"its format is {version}")
    shape, fortran, dtype = _HEADERS[version](file)
    if dtype.hasobject:
        raise ValueError("it holds objects, which only pickle could read")
    layout = _Layout(file.tell(), shape, "F" if fortran else "C", dtype)
    if any(length < 0 for length in shape) or layout.start + layout.nbytes != size:
        raise ValueError(f"its header says {dtype} {list(shape)}, which does not fit its {size} bytes")
    return layout


def _offset(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> int:
    """Return where an uncompressed member begins in the file."""
    with open(str(archive.filename), "rb") as file:
        file.seek(member.header_offset)
        _, name, extra = _LOCAL_HEADER.unpack(_exactly(file, _LOCAL_HEADER.size))
    return member.header_offset + _LOCAL_HEADER.size + name + extra


def _unpacked(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Path:
    """Return the member as a file of its own, made unless it is there; its checksum is in the name."""
    source = Path(str(archive.filename))
    stem = f"{source.name}.{member.filename.removesuffix('.npy')}."
    target = source.with_name(f"{stem}{member.CRC:08x}.npy")
    if _is_whole(target, member):
        return target
    with _locked(source.with_name(f".{source.name}.lock")):
        if not _is_whole(target, member):  # another process may have been faster
            free = shutil.disk_usage(source.parent).free
            if member.file_size > free:
                raise UserError(
                    f"{member.filename} of {source} takes {member.file_size / 1e9:.1f} GB unpacked, and "
                    f"{source.parent} has {free / 1e9:.1f} GB left: free some space, or move {source.name}"
                )
            logger.info("Unpacking %s of %s to %s, once", member.filename, source, target.name)
            write_atomically(target, lambda file: _copy(archive, member, file))
            for old in source.parent.iterdir():  # of what the npz file held before
                if old != target and re.fullmatch(re.escape(stem) + r"[0-9a-f]{8}\.npy", old.name):
                    old.unlink()
    return target


def _is_whole(path: Path, member: zipfile.ZipInfo) -> bool:
    return path.is_file() and path.stat().st_size == member.file_size


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one process in at a time; the lock of a killed one is gone with it."""
    with ExitStack() as stack:
        try:
            file = stack.enter_context(open(path, "ab"))
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            raise UserError(
                f"an array too large for memory is to be unpacked in {path.parent}, which cannot be written "
                f"({error.strerror}): make it writable, or copy the npz file to a folder that is"
            ) from error
        yield


def _copy(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: BinaryIO) -> None:
    with archive.open(member) as source:
        shutil.copyfileobj(source, target, _CHUNK)
    if target.tell() != member.file_size:
        raise ValueError("it is cut off")


def _exactly(file: IO[bytes], size: int) -> bytes:
    content = file.read(size)
    if len(content) != size:
        raise ValueError("it is cut off")
    return content


def _exhaust(file: IO[bytes]) -> None:
    """Read to the end, where a zip's member compares its checksum."""
    while file.read(_CHUNK):
        pass
