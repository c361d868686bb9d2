"""How an image on disk becomes an array: the one place that says which kinds of image are taken.

Taken as they are: 8-bit RGB. Converted: grey, black-and-white and palette images (grey is repeated to three channels);
an alpha channel that is opaque everywhere is dropped. Refused by name: real transparency, CMYK and other colour models,
16- and 32-bit samples, several frames, and pictures beyond Pillow's decompression-bomb limit. A broken or truncated
file is never filled up with grey. Pixels are taken as stored: an EXIF orientation is not applied. DICOM and NIfTI files
are recognised by their content and become 8 bits once windowed (`scripts.imaging.transforms.scans`).

Volumes (8-bit, one channel) come from npz, npy and NIfTI files; see `read_volume`. What an array is, its shape says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from monai.data.image_reader import ImageReader
from PIL import Image

from scripts.imaging.decoding.pictures import FORMATS
from scripts.imaging.decoding.reasons import ImageRefused, Reason
from scripts.imaging.decoding.rgb import file_rgb
from scripts.imaging.decoding.scans import is_scan, is_whole_volume, read_scan
from scripts.imaging.transforms.npz import holds_volumes, npz_images

NPY = ".npy"
AXIAL = (2, 1, 0)  # of [X, Y, Z]: slice by slice, rows first


class ReferenceReader(ImageReader):
    """Reads one image at a time by the function of its kind, `pixels`, to an array with the channels last.

    To be used as ``LoadImaged(keys="image", reader=..., image_only=True)`` followed by
    ``EnsureChannelFirstd(channel_dim=-1)``.
    """

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

    def pixels(self, reference: str) -> np.ndarray:
        """Return what `read_rgb` reads."""
        return read_rgb(reference)


class VolumeReader(ReferenceReader):
    """Reads an npz reference, an npy file or a NIfTI file to uint8 ``[D, H, W, 1]``; see `read_volume`."""

    def pixels(self, reference: str) -> np.ndarray:
        """Return what `read_volume` reads, with an axis for its one channel."""
        return read_volume(reference)[..., None]


def read_rgb(reference: str) -> np.ndarray:
    """Decode one image completely.

    Args:
        reference: an image file, ``<path>.npz#<split>/<index>``, an npy file of ``[H, W]`` or ``[H, W, 3]``, or a
            picture of a DICOM or NIfTI file (:func:`scripts.imaging.decoding.presentation.make_reference`).

    Returns:
        uint8 array ``[H, W, 3]``.

    Raises:
        ImageRefused: for an image that is missing, broken or of a kind that is not taken; it names the image and
            carries the code of the reason.
    """
    if not is_array(reference):
        return file_rgb(reference)
    if is_volume(reference):
        message = f"image {reference} is a volume: use a backbone for volumes (configs/networks/resnet18_3d.yaml)"
        raise ImageRefused(message, Reason.MANY_PICTURES)
    pixels = _array(reference)
    if pixels.dtype != np.uint8 or pixels.shape[2:] not in ((), (3,)) or not pixels.size:
        message = f"image {reference} is {pixels.dtype} {list(pixels.shape)}: it must be uint8 [H, W] or [H, W, 3]"
        raise ImageRefused(message, Reason.UNSUPPORTED_KIND)
    return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)


def read_volume(reference: str) -> np.ndarray:
    """Read one volume.

    Args:
        reference: ``<path>.npz#<split>/<index>`` of an array ``[N, D, H, W]``, an npy file of one ``[D, H, W]``, or a
            NIfTI file, no slice named (:func:`scripts.imaging.decoding.presentation.make_reference`).

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
    volume = _array(reference) if is_array(reference) else read_scan(reference).transpose(AXIAL)
    if volume.dtype != np.uint8 or volume.ndim != 3 or not volume.size:
        message = f"volume {reference} is {volume.dtype} {list(volume.shape)}: it must be uint8 [D, H, W]"
        raise ImageRefused(message, Reason.UNSUPPORTED_KIND)
    return np.ascontiguousarray(volume)


def is_volume(reference: str) -> bool:
    """Say whether a reference is to a volume rather than to a picture: an array, by its shape.

    Raises:
        UserError: an array cannot be read.
    """
    path, mark, member = reference.rpartition(".npz#")
    if mark:
        return holds_volumes(npz_images(f"{path}.npz", member.partition("/")[0]))
    if reference.lower().endswith(NPY):
        return holds_volumes(_npy_mapped(reference)[None])
    return is_whole_volume(reference)


def is_array(reference: str) -> bool:
    """Say whether a reference is to an entry of an npz file, or to an npy file."""
    return ".npz#" in reference or reference.lower().endswith(NPY)


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
        reference: an image file, an array, or a volume.

    Returns:
        Pillow's mode: ``L`` (grey), ``RGB``, ``P`` (palette), ...; of an npz entry ``L`` or ``RGB``, of a volume ``L``.
    """
    path, mark, member = reference.rpartition(".npz#")
    if mark:
        return "RGB" if npz_images(f"{path}.npz", member.partition("/")[0]).shape[3:] == (3,) else "L"
    if reference.lower().endswith(NPY):
        return "RGB" if _npy_mapped(reference).shape[2:] == (3,) else "L"
    if is_scan(reference):
        return "RGB" if not is_volume(reference) and read_scan(reference).ndim == 3 else "L"
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


def _array(reference: str) -> np.ndarray:
    """Return an image of an npz or npy file as it is stored: a copy, which may be changed."""
    return _npz_image(reference) if ".npz#" in reference else np.array(_npy_mapped(reference))


def _npy_mapped(path: str) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)  # a header that lies takes no memory
    except FileNotFoundError:
        message = f"array {path} is missing: put it back, or take it out of the data"
        raise ImageRefused(message, Reason.MISSING) from None
    except Exception as error:  # header, pickle, memory: all mean that the array is not to be had
        raise ImageRefused(f"array {path} cannot be read ({error}): it must be a plain array") from error
