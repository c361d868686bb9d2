"""Any image file as RGB, decoded where that is safe: in this process, or in one that can be ended."""

from __future__ import annotations

import numpy as np

from scripts.imaging.decoding.pictures import is_ordinary, picture_rgb
from scripts.imaging.decoding.presentation import split_reference
from scripts.imaging.decoding.process import decoder
from scripts.imaging.decoding.reasons import Refusal, refused
from scripts.imaging.decoding.scans import is_scan, read_scan_rgb


def file_rgb(reference: str) -> np.ndarray:
    """Decode a picture, or a picture of a DICOM or NIfTI file, completely.

    Args:
        reference: the path of a picture, or as of :func:`scripts.imaging.decoding.scans.read_scan`.

    Returns:
        uint8 array ``[H, W, 3]``.

    Raises:
        ImageRefused: with the reason.
    """
    if is_scan(reference):
        return read_scan_rgb(reference)
    path = split_reference(reference)[0]  # of a scan that is broken at its head the rest means nothing
    if is_ordinary(path):
        return picture_rgb(path)
    try:
        return decoder().picture(path)
    except Refusal as refusal:
        raise refused(path, refusal.reason) from None
