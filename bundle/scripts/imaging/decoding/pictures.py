"""An image file as RGB: the one place that says which of Pillow's kinds of image are taken.

`scripts.imaging.decoding.rgb` says in which process.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from scripts.imaging.decoding.kinds import PICTURES, is_picture
from scripts.imaging.decoding.reasons import ImageRefused, Reason

LARGEST = 30_000_000
"""Pixels of one picture, of any kind of file: on the way to the network each takes up to 28 bytes."""

FORMATS = ("PNG", "JPEG", "JPEG2000", "BMP", "GIF", "TIFF", "WEBP")
"""`scripts.imaging.decoding.kinds.PICTURES` as Pillow calls them. It knows many more: of one of them (EPS) it has
Ghostscript run what the file says."""

_MOST_PARTS = 4096  # chunks of a PNG, segments of a JPEG: an ICC profile and an EXIF thumbnail take a hundred
_MOST_SCANS = 16  # of a progressive JPEG, each of which passes over all pixels: encoders write ten
_HEAD = 34  # bytes: a BMP's compression stands in the last four
_SCAN = b"\xff\xda"
_JPEG2000_HEAD = 2**16  # bytes: boxes before the codestream hold a colour profile at most
_PLAIN_MODES = ("1", "L", "P", "RGB")
_ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")


def picture_rgb(path: str) -> np.ndarray:
    """Decode an image file completely.

    Args:
        path: of a file that is one of `scripts.imaging.decoding.kinds.PICTURES`, whatever it is called.

    Returns:
        uint8 array ``[H, W, 3]``.

    Raises:
        ImageRefused: for a file that is missing, broken or of a kind that is not taken, with the reason.
    """
    try:
        if os.path.isdir(path):
            raise ImageRefused(f"folder {path} cannot be opened: let it be read, or move it away")
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe has no end, a device may have none
            raise ImageRefused(f"image {path} is no file: replace it, or remove it")
        with Image.open(path, formats=FORMATS) as image:
            return _to_rgb(image, path)
    except ImageRefused:
        raise
    except FileNotFoundError:
        message = f"image {path} is missing: put it back, or take it out of the data"
        raise ImageRefused(message, Reason.MISSING) from None
    except Image.DecompressionBombError:
        message = f"image {path} has more pixels than any that is read: {LARGEST} are the most, make it smaller"
        raise ImageRefused(message, Reason.TOO_LARGE) from None
    except UnidentifiedImageError as error:
        if is_picture(path):
            raise ImageRefused(
                f"image {path} cannot be read, its header is broken: replace it, or remove it"
            ) from error
        message = f"image {path} is none of the kinds that are read ({', '.join(PICTURES)}): convert it, or remove it"
        raise ImageRefused(message, Reason.UNSUPPORTED_KIND) from error
    except Exception as error:  # Pillow's decoders raise nearly every kind of exception on a broken file
        raise ImageRefused(f"image {path} cannot be read ({error}): replace it, or remove it") from error


def is_ordinary(path: str) -> bool:
    """Say whether decoding a file takes no longer than its bytes and pixels say: then it is decoded in any process.

    That is so for plain PNG, JPEG and BMP. A small picture of another kind, or one of very many parts, may keep Pillow
    busy for minutes: with a hundred thousand frames, scans or tiles. What is no picture at all is soon refused.
    """
    if not os.path.isfile(path):
        return True
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD)
            if head.startswith(b"\x89PNG"):
                return _are_few(_chunks(file))
            if head.startswith(b"\xff\xd8"):
                return _are_few(_segments(file)) and file.read().count(_SCAN) < _MOST_SCANS
            if head.startswith(b"BM"):
                return head[30:31] in (b"\0", b"\3")  # not run lengths, which Pillow expands in Python
    except OSError:
        return True
    return not is_picture(path)


def _are_few(parts: Iterator[bool]) -> bool:
    """Say whether there are few parts, all of which are as they should be."""
    return all(number < _MOST_PARTS and good for number, good in enumerate(parts))


def _chunks(file: BinaryIO) -> Iterator[bool]:
    """Go through the chunks of a PNG."""
    file.seek(8)
    while len(head := file.read(8)) == 8:
        yield True
        file.seek(int.from_bytes(head[:4], "big") + 4, os.SEEK_CUR)


def _segments(file: BinaryIO) -> Iterator[bool]:
    """Go through the segments of a JPEG before its first scan, and say of each whether it begins with a marker."""
    file.seek(2)
    while len(head := file.read(4)) == 4 and head[:2] != _SCAN:
        yield head[0] == 0xFF and head[1] not in (0, 0xFF)
        file.seek(max(0, int.from_bytes(head[2:], "big") - 2), os.SEEK_CUR)


def _to_rgb(file: ImageFile.ImageFile, name: str) -> np.ndarray:
    image: Image.Image = file
    require_size(name, image.width, image.height)
    if image.mode not in _PLAIN_MODES + _ALPHA_MODES:
        message = f"image {name} is of the kind {image.mode}: convert it to 8-bit RGB or grey"
        raise ImageRefused(message, Reason.UNSUPPORTED_KIND)
    if _is_deep(file, name):
        message = f"image {name} has 16-bit samples: convert it to 8-bit RGB or grey"
        raise ImageRefused(message, Reason.UNSUPPORTED_KIND)
    if file.format != "MPO" and getattr(file, "n_frames", 1) > 1:  # the second of an MPO is a camera's preview
        message = f"image {name} has {getattr(image, 'n_frames', 1)} frames: save the one that counts"
        raise ImageRefused(message, Reason.MANY_PICTURES)
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema()[0] != 255:
            message = f"image {name} is transparent in parts: save it without an alpha channel"
            raise ImageRefused(message, Reason.TRANSPARENT)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _is_deep(file: ImageFile.ImageFile, name: str) -> bool:
    """Say whether a picture has samples of more than 8 bits, of which Pillow, opening colour as "RGB", drops some."""
    if file.format != "JPEG2000":
        return any(";16" in str(tile[3]) for tile in file.tile)
    with open(name, "rb") as content:
        head = content.read(_JPEG2000_HEAD)
    start = head.find(b"\xff\x4f\xff\x51") + 40  # of the codestream's size segment, whose sides are 8 numbers
    (count,) = struct.unpack_from(">H", head, start)
    return any(
        (depth & 0x7F) >= 8 for depth in head[start + 2 : start + 2 + 3 * count : 3]
    )  # less 1; bit 7 is the sign


def require_size(name: str, width: int, height: int) -> None:
    """Refuse a picture that would take more memory than an image may.

    Raises:
        ImageRefused: it has more than `LARGEST` pixels.
    """
    if width * height > LARGEST:
        message = f"image {name} has {width} x {height} pixels: {LARGEST} are the most, make it smaller"
        raise ImageRefused(message, Reason.TOO_LARGE)
