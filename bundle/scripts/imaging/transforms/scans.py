"""DICOM and NIfTI files as pictures, and the MONAI reader for them; `scripts.imaging.decoding` decodes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from monai.data.image_reader import ImageReader
from pydicom import Dataset

from scripts.imaging.decoding.dicom import header_dataset
from scripts.imaging.decoding.kinds import kind_of
from scripts.imaging.decoding.presentation import make_presentation, make_reference, split_reference
from scripts.imaging.decoding.process import decoder
from scripts.imaging.decoding.reasons import Refusal, refused
from scripts.imaging.decoding.scans import is_whole_volume, read_scan


@dataclass(frozen=True)
class SourceImage:
    """The DICOM image that a result is of.

    Args:
        header: what a result repeats of it; see :func:`scripts.imaging.decoding.dicom.read_header`.
        frames: the numbers, from 1, of the frames that were looked at; none where there is but one.
        shown: picture and settings of the reference, whatever the file is called.
        unreadable: what a result should repeat and cannot.
    """

    header: Dataset
    frames: tuple[int, ...]
    shown: str
    unreadable: tuple[str, ...]


def read_source_image(reference: str) -> SourceImage | None:
    """Return the DICOM image behind a reference; ``None`` for any other image.

    Raises:
        ImageRefused: with the reason.
    """
    path, picture, presentation = split_reference(reference)
    if kind_of(path) != "dicom":
        return None
    try:
        values = decoder().header(path, presentation)
    except Refusal as refusal:
        raise refused(reference, refusal.reason) from None
    header = header_dataset(values)
    count = int(header.get("NumberOfFrames") or 1)
    frames = {"": (1,), "mean": tuple(range(1, count + 1)), "middle": (count // 2 + 1,)}
    looked_at = frames[picture] if picture in frames else (int(picture) + 1,)
    unreadable = tuple(name for name, value in values.items() if value is None)
    return SourceImage(header, looked_at if count > 1 else (), make_reference("", picture, presentation), unreadable)


class ScanReader(ImageReader):
    """Reads DICOM and NIfTI files in any MONAI pipeline: ``LoadImaged("image", reader=ScanReader(window="40,400"))``.

    A picture comes as ``[H, W]`` or ``[H, W, 3]``, rows first, nothing transposed, a NIfTI file whose slice is not
    named as ``[X, Y, Z]``. What a reference says behind ``#`` goes before the settings given here.

    Args:
        picture: of each file; see :func:`scripts.imaging.decoding.presentation.make_reference`.
        bits: 32 for float32 0..1, 8 for uint8 0..255.
        settings: of :class:`scripts.imaging.decoding.presentation.Presentation`.
    """

    def __init__(self, picture: str = "", bits: int = 32, **settings: Any) -> None:
        self.picture = picture
        self.bits = bits
        self.presentation = make_presentation(settings)

    def verify_suffix(self, filename: Sequence[Any] | Any) -> bool:
        """Accept every name, as :class:`scripts.imaging.transforms.RGBReader` does."""
        return True

    def read(self, data: Sequence[Any] | Any, **kwargs: Any) -> str:
        """Return the one reference in ``data``; decoding waits for `get_data`, whose errors end the loading."""
        reference = str(data[0] if isinstance(data, (list, tuple)) else data)
        path, picture, _ = split_reference(reference)
        return make_reference(path, self.picture, self.presentation) if path == reference and not picture else reference

    def get_data(self, img: str) -> tuple[np.ndarray, dict[str, Any]]:
        """Return the pixels and what MONAI asks to be told about them."""
        pixels = np.array(read_scan(img, self.bits))
        colour = pixels.ndim == (4 if is_whole_volume(img) else 3)
        shape = np.asarray(pixels.shape[:-1] if colour else pixels.shape)
        return pixels, {"original_channel_dim": -1 if colour else "no_channel", "spatial_shape": shape}


def file_of(reference: str) -> str:
    """Return the path of the file that holds an image, whatever the image is."""
    path, mark, _ = reference.rpartition(".npz#")
    return f"{path}.npz" if mark else os.fspath(split_reference(reference)[0])
