"""How a picture on disk becomes red, green and blue: the one place that says which kinds of image are taken.

Taken as they are: 8-bit RGB. Converted: grey, black-and-white and palette images (grey is repeated to three channels);
an alpha channel that is opaque everywhere is dropped. Refused by name: real transparency, CMYK and other colour models,
16- and 32-bit samples, several frames, and pictures beyond Pillow's decompression-bomb limit. A broken or truncated
file is never filled up with grey. Pixels are taken as stored: an EXIF orientation is not applied. DICOM and NIfTI files
are recognised by their content and become 8 bits once windowed (`scripts.transforms.scans`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from monai.data.image_reader import ImageReader
from PIL import Image, ImageFile

from scripts.decoding.reasons import ImageRefused, Reason
from scripts.errors import UserError
from scripts.transforms.npz import npz_images
from scripts.transforms.scans import is_scan, read_scan, read_scan_rgb

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


def stored_mode(reference: str) -> str:
    """Say how a readable image keeps its pixels, before they become RGB; only DICOM and NIfTI are decoded for it.

    Args:
        reference: an image file, or ``<path>.npz#<split>/<index>``.

    Returns:
        Pillow's mode: ``L`` (grey), ``RGB``, ``P`` (palette), ...; of an npz entry ``L`` or ``RGB``.
    """
    path, mark, member = reference.rpartition(".npz#")
    if mark:
        return "L" if npz_images(f"{path}.npz", member.partition("/")[0]).ndim == 3 else "RGB"
    if is_scan(reference):
        return "L" if read_scan(reference).ndim == 2 else "RGB"
    with Image.open(reference) as image:
        return image.mode


def _npz_image(reference: str, path: str, member: str) -> np.ndarray:
    split, _, number = member.partition("/")
    images = npz_images(path, split)
    if not number.isdecimal() or int(number) >= len(images):
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
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))
