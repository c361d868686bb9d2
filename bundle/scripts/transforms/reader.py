"""How an image on disk becomes an array: the one place that says which kinds of image are taken.

Taken as they are: 8-bit RGB. Converted: grey, black-and-white and palette images (grey is repeated to three channels);
an alpha channel that is opaque everywhere is dropped. Refused by name: real transparency, CMYK and other colour models,
16- and 32-bit samples, several frames, and pictures beyond Pillow's decompression-bomb limit. A broken or truncated
file is never filled up with grey. Pixels are taken as stored: an EXIF orientation is not applied. DICOM and NIfTI files
are recognised by their content and become 8 bits once windowed (`scripts.transforms.scans`).

Volumes (8-bit, one channel) come from npz, npy and NIfTI files; see `read_volume`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from monai.data.image_reader import ImageReader
from PIL import Image

from scripts.decoding.pictures import FORMATS, picture_rgb
from scripts.decoding.reasons import ImageRefused, Reason
from scripts.decoding.scans import is_scan, is_whole_volume, read_scan, read_scan_rgb
from scripts.transforms.npz import holds_volumes, npz_images

NPY = ".npy"
AXIAL = (2, 1, 0)  # of [X, Y, Z]: slice by slice, rows first


class ReferenceReader(ImageReader):
    """Reads one image at a time by the function of its kind, `pixels`, to an array with the channels last.

    To be used as ``LoadImaged(keys="image", reader=..., image_only=True)`` followed by
    ``EnsureChannelFirstd(channel_dim=-1)``.
    """

    suffixes: tuple[str, ...] = ()
    """How the names of the files of this kind end, for who searches a folder."""

    def pixels(self, reference: str) -> np.ndarray:
        """Decode one image completely; to be defined by each kind.

        Raises:
            UserError: for an image that is missing, broken or of a kind that is not taken; it names the image.
        """
        raise NotImplementedError

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
        """Return the pixels, and what MONAI asks to be told about them."""
        pixels = self.pixels(img)
        return pixels, {"original_channel_dim": -1, "spatial_shape": np.asarray(pixels.shape[:-1])}


class RGBReader(ReferenceReader):
    """Reads an image file or an npz reference to uint8 ``[H, W, 3]``: rows first, nothing transposed."""

    suffixes = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")

    def pixels(self, reference: str) -> np.ndarray:
        """Return what `read_rgb` reads."""
        return read_rgb(reference)


class VolumeReader(ReferenceReader):
    """Reads an npz reference, an npy file or a NIfTI file to uint8 ``[D, H, W, 1]``; see `read_volume`."""

    suffixes = (NPY,)

    def pixels(self, reference: str) -> np.ndarray:
        """Return what `read_volume` reads, with an axis for its one channel."""
        return read_volume(reference)[..., None]


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
    if ".npz#" in reference:
        pixels = _npz_image(reference)
        if pixels.ndim == 2:
            return np.repeat(pixels[..., None], 3, axis=2)
        if pixels.shape[2] == 3:
            return pixels
    if ".npz#" in reference or reference.lower().endswith(NPY):
        message = f"image {reference} is a volume: use a backbone for volumes (configs/networks/resnet18_3d.json)"
        raise ImageRefused(message, Reason.MANY_PICTURES)
    if is_scan(reference):
        return read_scan_rgb(reference)
    return picture_rgb(reference)


def read_volume(reference: str) -> np.ndarray:
    """Read one volume.

    Args:
        reference: ``<path>.npz#<split>/<index>`` of an array ``[N, D, H, W]``, an npy file of one ``[D, H, W]``, or a
            NIfTI file, no slice named (:func:`scripts.decoding.presentation.make_reference`).

    Returns:
        uint8 array ``[D, H, W]``; of a NIfTI file, ``[k]`` is its slice ``#2/k``.

    Raises:
        ImageRefused: for a volume that is missing, broken or of a kind that is not taken; it names the volume.
    """
    if not is_volume(reference):
        message = (
            f"image {reference} is no volume: use a backbone for images, or give NIfTI, npz or npy files of volumes"
        )
        raise ImageRefused(message, Reason.UNSUPPORTED_KIND)
    if is_scan(reference):
        volume = np.ascontiguousarray(read_scan(reference).transpose(AXIAL))
    else:
        volume = _npz_image(reference) if ".npz#" in reference else _npy_array(reference)
    if volume.dtype != np.uint8 or volume.ndim != 3 or not volume.size:
        message = f"volume {reference} is {volume.dtype} {list(volume.shape)}: it must be uint8 [D, H, W]"
        raise ImageRefused(message, Reason.UNSUPPORTED_KIND)
    return volume


def is_volume(reference: str) -> bool:
    """Say whether a reference is to a volume rather than to a picture."""
    path, mark, member = reference.rpartition(".npz#")
    if mark:
        return holds_volumes(npz_images(f"{path}.npz", member.partition("/")[0]))
    return reference.lower().endswith(NPY) or is_whole_volume(reference)


def read_picture(reference: str) -> np.ndarray:
    """Read what people look at, uint8 ``[H, W, 3]``: an image, or the middle slice of a volume.

    Raises:
        UserError: as `read_rgb` and `read_volume`.
    """
    if not is_volume(reference):
        return read_rgb(reference)
    volume = read_volume(reference)
    return np.repeat(volume[len(volume) // 2, ..., None], 3, axis=2)


def stored_mode(reference: str) -> str:
    """Say how a readable image keeps its pixels, before they become RGB; only DICOM and NIfTI are decoded for it.

    Args:
        reference: an image file, a volume, or ``<path>.npz#<split>/<index>``.

    Returns:
        Pillow's mode: ``L`` (grey), ``RGB``, ``P`` (palette), ...; of an npz entry ``L`` or ``RGB``, of a volume ``L``.
    """
    path, mark, member = reference.rpartition(".npz#")
    if mark:
        return "RGB" if npz_images(f"{path}.npz", member.partition("/")[0]).shape[3:] == (3,) else "L"
    if is_volume(reference):
        return "L"
    if is_scan(reference):
        return "L" if read_scan(reference).ndim == 2 else "RGB"
    with Image.open(reference, formats=FORMATS) as image:
        return image.mode


def _npz_image(reference: str) -> np.ndarray:
    """Return one image of an npz file as it is stored: a copy, which may be changed."""
    path, _, member = reference.rpartition("#")
    split, _, number = member.partition("/")
    images = npz_images(path, split)
    if not number.isdecimal() or int(number) >= len(images):
        message = f"image {reference} is missing: {path} has {len(images)} images in {split}_images"
        raise ImageRefused(message, Reason.NO_SUCH_PICTURE)
    return np.array(images[int(number)])


def _npy_array(path: str) -> np.ndarray:
    try:
        return np.array(np.load(path, mmap_mode="r", allow_pickle=False))  # mapped: a header that lies takes no memory
    except FileNotFoundError:
        message = f"volume {path} is missing: put it back, or take it out of the data"
        raise ImageRefused(message, Reason.MISSING) from None
    except Exception as error:  # header, pickle, memory: all mean that the array is not to be had
        raise ImageRefused(f"volume {path} cannot be read ({error}): it must be a plain array") from error
