"""DICOM and NIfTI files as pictures: which of them count, and what they show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from scripts.imaging.decoding.kinds import kind_of
from scripts.imaging.decoding.pictures import require_size
from scripts.imaging.decoding.presentation import KEY, Presentation, make_presentation, make_reference, split_reference
from scripts.imaging.decoding.process import decoder
from scripts.imaging.decoding.reasons import Reason, Refusal, refused
from scripts.utils.errors import UserError

POLICIES = ("only", "middle", "mean", "all")


def is_scan(reference: str) -> bool:
    """Say whether a reference names a DICOM or NIfTI file, by the file's content."""
    return kind_of(split_reference(reference)[0]) is not None


def read_scan(reference: str, bits: int = 8) -> np.ndarray:
    """Decode a picture of a DICOM or NIfTI file, or a NIfTI volume.

    Args:
        reference: ``<path>#<picture>?<settings>``, see :func:`scripts.imaging.decoding.presentation.make_reference`.
        bits: 8 for uint8 0..255, 32 for float32 0..1.

    Returns:
        ``[H, W]`` or ``[H, W, 3]``, rows first; of a whole volume ``[X, Y, Z]``.

    Raises:
        ImageRefused: with the reason.
    """
    path, picture, presentation = split_reference(reference)
    try:
        return decoder().read(path, picture, presentation, bits)
    except Refusal as refusal:
        raise refused(reference, refusal.reason) from None


def read_scan_rgb(reference: str) -> np.ndarray:
    """Decode a picture to uint8 ``[H, W, 3]``; grey is repeated to three channels.

    Raises:
        ImageRefused: with the reason; ``many_pictures`` for a NIfTI file whose slice is not named, ``too_large`` for
            a picture of more pixels than :data:`scripts.imaging.decoding.pictures.LARGEST`.
    """
    pixels = read_scan(reference)
    if is_whole_volume(reference):
        raise refused(reference, Reason.MANY_PICTURES)
    require_size(reference, pixels.shape[1], pixels.shape[0])
    return np.array(pixels) if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)


def is_whole_volume(reference: str) -> bool:
    """Say whether a reference names a NIfTI file and no slice of it."""
    path, picture, _ = split_reference(reference)
    return not picture and kind_of(path) == "nifti"


@dataclass(frozen=True)
class Selection:
    """Which pictures of a file count, and how they are shown: the config's key ``presentation``.

    Args:
        pictures: of the frames (DICOM) or slices (NIfTI): ``only`` (files of several are refused), ``middle``,
            ``mean``, ``all``, a number from 0, or ``start,stop,step``.
        axis: NIfTI: the axis that slices are cut across, as reoriented (LPI: 0 sagittal, 1 coronal, 2 axial).
        volume: NIfTI: which volume of a 4-D file; ``None``: those are refused.
        presentation: how each is shown.

    Raises:
        UserError: for a value that means nothing.
    """

    pictures: str
    axis: int
    volume: int | None
    presentation: Presentation

    def __post_init__(self) -> None:
        parts = self.pictures.split(",")
        numbers = all(part.isascii() and part.isdigit() for part in parts)
        if self.pictures not in POLICIES and not (numbers and len(parts) in (1, 3) and parts[2:] != ["0"]):
            raise UserError(
                f"pictures is {self.pictures!r}: give {', '.join(POLICIES)}, a number, or start,stop,step ({KEY})"
            )
        if self.axis not in (0, 1, 2):
            raise UserError(f"axis is {self.axis!r}: give 0, 1 or 2 ({KEY})")
        if self.volume is not None and not (isinstance(self.volume, int) and self.volume >= 0):
            raise UserError(f"volume is {self.volume!r}: give a number from 0, or null ({KEY})")

    def references(self, path: str, key: bytes = b"") -> tuple[list[str], dict[str, Any]]:
        """Name the pictures of a file that count.

        A file that cannot be described is named as it is: reading it will say why.

        Args:
            path: a DICOM or NIfTI file.
            key: of the HMAC by which patients are told apart.

        Returns:
            References, and the file's description (empty where it has none).
        """
        try:
            found = decoder().describe(path, key, self.presentation)
        except Refusal:
            return [make_reference(path, "", self.presentation)], {}
        count = found["shape"][self.axis] if "shape" in found else found["pictures"]
        names = [self._name(picture, found) for picture in self._chosen(count)]
        return [make_reference(path, name, self.presentation) for name in names], found

    def _chosen(self, count: int) -> list[str]:
        if self.pictures == "only":
            return ["" if count > 1 else "0"]
        if self.pictures == "all":
            return [str(number) for number in range(count)]
        if "," in self.pictures:
            return [str(number) for number in range(count)[slice(*map(int, self.pictures.split(",")))]]
        return [self.pictures]

    def _name(self, picture: str, found: Mapping[str, Any]) -> str:
        if "shape" not in found:
            return picture if found["pictures"] > 1 else ""
        volume = f"/{self.volume}" if self.volume is not None and len(found["shape"]) == 4 else ""
        return f"{self.axis}/{picture}{volume}" if picture else ""


def make_selection(settings: Mapping[str, Any] | None) -> Selection:
    """Make a selection of a config's values: those of :class:`Selection` and of its presentation, all optional.

    Raises:
        UserError: as both.
    """
    values = dict(settings or {})
    pictures = values.pop("pictures", "only")
    axis, volume = values.pop("axis", 2), values.pop("volume", None)
    listed = ",".join(map(str, pictures)) if isinstance(pictures, (list, tuple)) else str(pictures)
    return Selection(listed, axis, volume, make_presentation(values))
