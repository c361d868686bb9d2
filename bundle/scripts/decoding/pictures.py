"""An image file as RGB: the one place that says which of Pillow's kinds of image are taken."""

from __future__ import annotations

import os
import stat

import numpy as np
from PIL import Image, ImageFile

from scripts.decoding.reasons import ImageRefused, Reason

LARGEST = 30_000_000
"""Pixels of one picture, of any kind of file: on the way to the network each takes up to 28 bytes."""

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP")
"""Pillow knows many more: of one of them (EPS) it has Ghostscript run what the file says."""

_PLAIN_MODES = ("1", "L", "P", "RGB")
_ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")


def picture_rgb(path: str) -> np.ndarray:
    """Decode an image file completely.

    Args:
        path: of a PNG, JPEG, BMP, GIF, TIFF or WebP file, whatever it is called.

    Returns:
        uint8 array ``[H, W, 3]``.

    Raises:
        ImageRefused: for a file that is missing, broken or of a kind that is not taken, with the reason.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe has no end, a device may have none
            raise ImageRefused(f"image {path} is no file: replace it, or remove it")
        with Image.open(path, formats=FORMATS) as image:
            return _to_rgb(image, path)
    except ImageRefused:
        raise
    except FileNotFoundError:
        message = f"image {path} is missing: put it back, or take it out of the data"
        raise ImageRefused(message, Reason.MISSING) from None
    except Exception as error:  # Pillow's decoders raise nearly every kind of exception on a broken file
        raise ImageRefused(f"image {path} cannot be read ({error}): replace it, or remove it") from error


def _to_rgb(file: ImageFile.ImageFile, name: str) -> np.ndarray:
    image: Image.Image = file
    require_size(name, image.width, image.height)
    if image.mode not in _PLAIN_MODES + _ALPHA_MODES:
        message = f"image {name} is of the kind {image.mode}: convert it to 8-bit RGB or grey"
        raise ImageRefused(message, Reason.UNSUPPORTED_KIND)
    if any(";16" in str(tile[3]) for tile in file.tile):  # Pillow opens 16-bit colour as "RGB" and drops 8 bits
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


def require_size(name: str, width: int, height: int) -> None:
    """Refuse a picture that would take more memory than an image may.

    Raises:
        ImageRefused: it has more than `LARGEST` pixels.
    """
    if width * height > LARGEST:
        message = f"image {name} has {width} x {height} pixels: {LARGEST} are the most, make it smaller"
        raise ImageRefused(message, Reason.TOO_LARGE)
