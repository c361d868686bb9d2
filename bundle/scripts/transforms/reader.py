"""How a picture on disk becomes red, green and blue: the one place that says which kinds of image are taken.

Taken as they are: 8-bit RGB. Converted: grey, black-and-white and palette images (grey is repeated to three channels);
an alpha channel that is opaque everywhere is dropped. Refused by name: real transparency, CMYK and other colour models,
16- and 32-bit samples, several frames, and pictures beyond Pillow's decompression-bomb limit. A broken or truncated
file is never filled up with grey. Pixels are taken as stored: an EXIF orientation is not applied. DICOM and NIfTI files
are recognised by their content and become 8 bits once windowed (`scripts.transforms.scans`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from monai.data.image_reader import ImageReader
from PIL import Image, ImageFile

from scripts.decoding.reasons import ImageRefused, Reason
from scripts.errors import UserError
from scripts.transforms.scans import is_scan, read_scan_rgb

_PLAIN_MODES = ("1", "L", "P", "RGB")
_ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")


class RGBReader(ImageReader):
    """Reads an image file or an npz reference to uint8 ``[H, W, 3]``: rows first, nothing transposed.

    To be used as ``LoadImaged(keys="image", reader=RGBReader(), image_only=True)`` followed by
    ``EnsureChannelFirstd(channel_dim=-1)``.
    """

    def verify_suffix(self, filename: Sequence[Any] | Any) -> bool:
        """Accept every name: a name says little about a file, and what cannot be read is refused when decoding."""
        return True

    def read(self, data: Sequence[Any] | Any, **kwargs: Any) -> str:
        """Return the one reference in ``data``; decoding waits for `get_data`.

        ``LoadImage`` tries its other readers where this method raises, and one of them might well read, transposed,
        what is refused here. What `get_data` raises ends the loading.
        """
        return str(data[0] if isinstance(data, (list, tuple)) else data)

    def get_data(self, img: str) -> tuple[np.ndarray, dict[str, Any]]:
        """Return the pixels, uint8 ``[H, W, 3]``, and what MONAI asks to be told about them."""
        pixels = read_rgb(img)
        return pixels, {"original_channel_dim": -1, "spatial_shape": np.asarray(pixels.shape[:2])}


def read_rgb(reference: str) -> np.ndarray:
    """Decode one image completely.

    Args:
        reference: an image file, ``<path>.npz#<split>/<index>``, or a picture of a DICOM or NIfTI file
            (:func:`scripts.decoding.presentation.make_reference`).

    Returns:
        uint8 array ``[H, W, 3]``.

    Raises:
        ImageRefused: for an image that is missing, broken or of a kind that is not taken; it names the image and
            carries the code of the reason.
    """
    path, mark, member = reference.rpartition(".npz#")
    if mark:
        return _npz_image(reference, f"{path}.npz", member)
    if is_scan(reference):
        return read_scan_rgb(reference)
    try:
        with Image.open(reference) as image:
            return _to_rgb(image, reference)
    except UserError:
        raise
    except FileNotFoundError:
        message = f"image {reference} is missing: put it back, or take it out of the data"
        raise ImageRefused(message, Reason.MISSING) from None
    except Exception as error:  # Pillow's decoders raise nearly every kind of exception on a broken file
        raise ImageRefused(f"image {reference} cannot be read ({error}): replace it, or remove it") from error


def npz_array(path: str, name: str) -> np.ndarray:
    """Return one array of an npz file, kept in memory for the next call; never unpickles.

    Raises:
        UserError: where the file or the array is missing or broken, or holds pickled objects; it names the file.
    """
    return _load_npz(path, name)


@lru_cache(maxsize=16)
def _load_npz(path: str, name: str) -> np.ndarray:
    if not os.path.isfile(path):
        raise UserError(f"data file {path} is missing: put it there, or give its right name")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if name in arrays.files:
                return np.asarray(arrays[name])
            found = ", ".join(arrays.files)
    except Exception as error:  # zip, zlib, header and pickle errors: all mean that the array is not to be had
        raise UserError(f"array {name} of {path} cannot be read ({error}): it must be a plain array") from error
    raise UserError(f"data file {path} has no array {name}, only {found}: the MedMNIST layout is needed")


def _npz_image(reference: str, path: str, member: str) -> np.ndarray:
    split, _, number = member.partition("/")
    images = npz_array(path, f"{split}_images")
    if not number.isdigit() or int(number) >= len(images):
        message = f"image {reference} is missing: {path} has {len(images)} images in {split}_images"
        raise ImageRefused(message, Reason.NO_SUCH_PICTURE)
    pixels = images[int(number)]
    return np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else np.array(pixels)


def _to_rgb(file: ImageFile.ImageFile, name: str) -> np.ndarray:
    image: Image.Image = file
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
    return np.array(image.convert("RGB"))
