"""One picture of a DICOM file, as its presentation says: DICOM PS3.3 C.7.6, C.8, C.11.1 and C.11.2, PS3.4 N.2.

The order is that of the standard: stored values, modality LUT, VOI LUT or window, inversion of MONOCHROME1. Overlays,
annotations, pixel aspect ratio and colour profiles are not applied.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import math
import os
import shutil
import subprocess
from functools import lru_cache
from typing import Any

import numpy as np
import pydicom
from pydicom.config import RAISE
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.pixels import (
    apply_color_lut,
    apply_modality_lut,
    apply_voi,
    get_decoder,
    pixel_array,
)
from pydicom.uid import UID

from scripts.decoding.presentation import WINDOWS, Presentation, centre_and_width
from scripts.decoding.reasons import Reason, Refusal, refusing

# Decoders that survive broken files. Others that happen to be installed are not asked: gdcm kills the interpreter on
# damaged JPEG, pylibjpeg-rle panics.
_JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
_HTJ2K = ("1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203")
_JPEG_BASELINE, _JPEG_EXTENDED = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"
_PLUGINS: dict[str, tuple[str, ...]] = {
    _JPEG_BASELINE: ("pillow",),
    _JPEG_EXTENDED: ("pillow",),
    "1.2.840.10008.1.2.4.80": ("pyjpegls",),
    "1.2.840.10008.1.2.4.81": ("pyjpegls",),
    **dict.fromkeys(_JPEG_2000, ("pylibjpeg", "pillow")),
    **dict.fromkeys(_HTJ2K, ("pylibjpeg",)),
    "1.2.840.10008.1.2.5": ("pydicom",),
}
_NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2")
_JPEG_LOSSLESS = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")

# Pixels that are no picture to look at, or no picture of a size that one looks at: segmentations, parametric maps,
# doses, whole slides.
_NO_PICTURES = (
    "1.2.840.10008.5.1.4.1.1.66.4",
    "1.2.840.10008.5.1.4.1.1.66.7",
    "1.2.840.10008.5.1.4.1.1.30",
    "1.2.840.10008.5.1.4.1.1.481.2",
    "1.2.840.10008.5.1.4.1.1.77.1.6",
)
# Ultrasound and secondary captures, of one frame or several: where names are written into the pixels
_OFTEN_BURNED_IN = (
    "1.2.840.10008.5.1.4.1.1.3.",
    "1.2.840.10008.5.1.4.1.1.6.",
    "1.2.840.10008.5.1.4.1.1.7.",
)
OWN_MANUFACTURER = "DynaMMo bundle"
"""The manufacturer that our own results name, by which they are known: a result is never classified."""

PATIENT_AND_STUDY = (
    *("PatientName", "PatientID", "IssuerOfPatientID", "TypeOfPatientID", "PatientBirthDate", "PatientSex"),
    *("PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence"),
    *("StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "StudyDescription", "AccessionNumber"),
    *("ReferringPhysicianName", "PatientAge", "PatientSize", "PatientWeight"),
)
"""What a result has in common with the image that it is of."""

_IMAGE = (
    *("SeriesInstanceUID", "SeriesNumber", "SOPClassUID", "SOPInstanceUID", "InstanceNumber", "NumberOfFrames"),
    *("Modality", "PatientOrientation", "Laterality", "BurnedInAnnotation"),
)
_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")


def readable_syntaxes() -> tuple[str, ...]:
    """Return the transfer syntaxes that are read here, uncompressed ones first."""
    return (*_NATIVE, *_PLUGINS, *(_JPEG_LOSSLESS if _dcmdjpeg() else ()))


def forbid_other_decoders() -> None:
    """Take every decoder out of pydicom's tables that is not in ours."""
    for uid in (*_PLUGINS, *_JPEG_LOSSLESS):
        decoder, allowed = get_decoder(UID(uid)), _PLUGINS.get(uid, ())
        for name in ("gdcm", "pylibjpeg", "pillow", "pyjpegls", "pydicom"):
            if name not in allowed and name in (*decoder.available_plugins, *decoder.missing_dependencies):
                decoder.remove_plugin(name)


def read_dicom(path: str, picture: str, presentation: Presentation) -> np.ndarray:
    """Decode one picture of a file.

    Args:
        path: the file.
        picture: ``""`` (the only frame), a frame's number from 0, ``middle`` or ``mean``.
        presentation: the window and what is accepted.

    Returns:
        float32 ``[H, W]`` or ``[H, W, 3]``, 0..1, rows first.

    Raises:
        Refusal: with the reason.
    """
    dataset = _parsed(path, os.stat(path).st_mtime_ns, presentation.max_bytes)
    with refusing(Reason.CORRUPT_HEADER):  # pydicom reads an element when it is asked for it
        frames = _checked(dataset, presentation)
        return _picture(dataset, picture, frames, presentation)


def _picture(dataset: Dataset, picture: str, frames: int, presentation: Presentation) -> np.ndarray:
    if picture == "mean":
        total = _frame(dataset, 0, presentation).astype(np.float64)
        for index in range(1, frames):
            total += _frame(dataset, index, presentation)
        return (total / frames).astype(np.float32)
    return _frame(dataset, _index(picture, frames), presentation)


def describe_dicom(path: str, key: bytes, presentation: Presentation) -> dict[str, Any]:
    """Say of a file what is needed to group and order files, and nothing of the patient.

    Returns:
        ``pictures``: number of frames; ``patient``: HMAC of the PatientID, of the study where there is none, ``None``
        where there is neither; ``series``: HMAC of the series; ``position``: along the axis of the slices.
    """
    dataset = _parsed(path, os.stat(path).st_mtime_ns, presentation.max_bytes)
    with refusing(Reason.CORRUPT_HEADER):
        return {
            "pictures": _frames(dataset),
            "patient": _code(key, dataset.get("PatientID") or dataset.get("StudyInstanceUID")),
            "series": _code(key, dataset.get("SeriesInstanceUID")),
            "position": _position(dataset),
        }


def read_header(path: str, max_bytes: int) -> dict[str, Any]:
    """Return what a result about a file's image repeats of its header, as DICOM JSON (PS3.18 F).

    What contradicts its value representation (a date that is none, a UID of letters) is left out.

    Raises:
        Refusal: with the reason.
    """
    dataset = _parsed(path, os.stat(path).st_mtime_ns, max_bytes)
    header = Dataset()
    for name in (*PATIENT_AND_STUDY, *_IMAGE):
        try:
            element = dataset[name]
            header.add(DataElement(element.tag, element.VR, element.value, validation_mode=RAISE))
        except Exception:  # missing, or whatever pydicom raises on a broken value
            continue
    with refusing(Reason.CORRUPT_HEADER):
        return header.to_json_dict()


def _code(key: bytes, value: Any) -> str | None:
    if not value:
        return None
    return hmac.new(key, str(value).strip().encode("utf-8", "replace"), hashlib.sha256).hexdigest()[:32]


def _position(dataset: Dataset) -> float:
    try:
        rows_and_columns = np.array(dataset.ImageOrientationPatient, dtype=np.float64).reshape(2, 3)
        normal = np.cross(*rows_and_columns)
        position = float(normal @ np.array(dataset.ImagePositionPatient, dtype=np.float64))
    except (AttributeError, TypeError, ValueError):
        position = math.nan
    if math.isfinite(position):
        return position
    try:
        return float(dataset.get("InstanceNumber") or 0)
    except (TypeError, ValueError):
        return 0.0


@lru_cache(maxsize=1)
def _parsed(path: str, modified: int, max_bytes: int) -> Dataset:
    """Parse a file; the last one is kept, for its other frames."""
    if os.path.getsize(path) > max_bytes:
        raise Refusal(Reason.TOO_LARGE)
    with refusing(Reason.CORRUPT_HEADER):
        dataset = pydicom.dcmread(path, force=True)
    if len(dataset) == 0:
        raise Refusal(Reason.CORRUPT_HEADER)
    return dataset


def _checked(dataset: Dataset, presentation: Presentation) -> int:
    """Refuse what is not taken; return the number of frames."""
    sop_class = str(dataset.get("SOPClassUID", ""))
    if dataset.get("Manufacturer") == OWN_MANUFACTURER:
        raise Refusal(Reason.OWN_RESULT)
    if sop_class in _NO_PICTURES:
        raise Refusal(Reason.UNSUPPORTED_SOP_CLASS)
    if not any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise Refusal(Reason.CORRUPT_PIXELS if "Rows" in dataset else Reason.NO_PIXELS)  # cut off, or never there
    if "PixelData" not in dataset:
        raise Refusal(Reason.UNSUPPORTED_KIND)
    frames = _frames(dataset)
    if int(dataset.Rows) * int(dataset.Columns) * frames > presentation.max_pixels:
        raise Refusal(Reason.TOO_LARGE)
    _check_pixel_description(dataset)
    _check_syntax(dataset)
    for reason in _reservations(dataset, sop_class):
        if reason not in presentation.accept:
            raise Refusal(reason)
    return frames


def _frames(dataset: Dataset) -> int:
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames < 1:
        raise Refusal(Reason.CORRUPT_HEADER)
    return frames


def _check_pixel_description(dataset: Dataset) -> None:
    rows, columns, allocated = int(dataset.Rows), int(dataset.Columns), int(dataset.BitsAllocated)
    stored, samples = int(dataset.BitsStored), int(dataset.SamplesPerPixel)
    if rows < 1 or columns < 1 or not 1 <= stored <= allocated or int(dataset.PixelRepresentation) not in (0, 1):
        raise Refusal(Reason.CORRUPT_HEADER)
    if int(dataset.get("HighBit", stored - 1)) != stored - 1:  # values that do not start at the lowest bit
        raise Refusal(Reason.CORRUPT_HEADER)
    colours = str(dataset.PhotometricInterpretation)
    if colours not in (*_GREY, *_COLOUR, "PALETTE COLOR"):
        raise Refusal(Reason.UNSUPPORTED_KIND)
    if samples != (3 if colours in _COLOUR else 1):
        raise Refusal(Reason.CORRUPT_HEADER)


def _check_syntax(dataset: Dataset) -> None:
    syntax = str(dataset.file_meta.get("TransferSyntaxUID", "")) if hasattr(dataset, "file_meta") else ""
    if not syntax:
        raise Refusal(Reason.CORRUPT_HEADER)
    if syntax not in readable_syntaxes():
        raise Refusal(Reason.UNSUPPORTED_TRANSFER_SYNTAX)


def _reservations(dataset: Dataset, sop_class: str) -> list[Reason]:
    """Return what a configuration must accept before this file is taken."""
    found = []
    if not all(dataset.get(name) for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")):
        found.append(Reason.MISSING_IDENTIFIERS)
    kinds = dataset.get("ImageType") or []
    words = [str(word).strip().upper() for word in ([kinds] if isinstance(kinds, str) else kinds)]
    if "LOCALIZER" in words:
        found.append(Reason.LOCALIZER)
    if words[:1] == ["DERIVED"]:
        found.append(Reason.DERIVED)
    burned_in = str(dataset.get("BurnedInAnnotation") or "").strip().upper()
    if burned_in == "YES" or (burned_in != "NO" and f"{sop_class}.".startswith(_OFTEN_BURNED_IN)):
        found.append(Reason.BURNED_IN)
    return found


def _index(picture: str, frames: int) -> int:
    if picture == "" and frames > 1:
        raise Refusal(Reason.MANY_PICTURES)
    if picture in ("", "middle"):
        return frames // 2
    if not (picture.isascii() and picture.isdigit()) or int(picture) >= frames:
        raise Refusal(Reason.NO_SUCH_PICTURE)
    return int(picture)


def _frame(dataset: Dataset, index: int, presentation: Presentation) -> np.ndarray:
    stored = _stored(dataset, index)
    if np.dtype(stored.dtype).kind not in "ui":
        raise Refusal(Reason.UNSUPPORTED_KIND)
    colours = str(dataset.PhotometricInterpretation)
    shape = (int(dataset.Rows), int(dataset.Columns)) + ((3,) if colours in _COLOUR else ())
    if stored.shape != shape:
        raise Refusal(Reason.CORRUPT_PIXELS)
    if colours in _COLOUR:
        return stored.astype(np.float32) / np.float32(2 ** int(dataset.BitsStored) - 1)
    if colours == "PALETTE COLOR":
        coloured = apply_color_lut(stored, dataset)
        return coloured[..., :3].astype(np.float32) / np.float32(np.iinfo(coloured.dtype).max)
    return _grey(stored, _attributes(dataset, index), presentation)


def _stored(dataset: Dataset, index: int) -> np.ndarray:
    """Return one frame's stored values, ``[H, W]``, or colours as RGB, ``[H, W, 3]``."""
    syntax = str(dataset.file_meta.TransferSyntaxUID)
    if _dcmdjpeg() and (syntax in _JPEG_LOSSLESS or (syntax == _JPEG_EXTENDED and int(dataset.BitsAllocated) > 8)):
        dataset = _decompressed(str(dataset.filename), os.stat(str(dataset.filename)).st_mtime_ns)
    elif syntax == _JPEG_EXTENDED and int(dataset.BitsAllocated) > 8:
        raise Refusal(Reason.UNSUPPORTED_TRANSFER_SYNTAX)
    with refusing(Reason.CORRUPT_PIXELS):
        return pixel_array(dataset, index=index)


def _dcmdjpeg() -> str | None:
    return shutil.which("dcmdjpeg")


@lru_cache(maxsize=1)
def _decompressed(path: str, modified: int) -> Dataset:
    """Decompress a file by dcmtk; nothing is written to disk."""
    command = [str(_dcmdjpeg()), "--quiet", path, "-"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    if done.returncode != 0:
        raise Refusal(Reason.CORRUPT_PIXELS)
    with refusing(Reason.CORRUPT_PIXELS):
        return pydicom.dcmread(io.BytesIO(done.stdout), force=True)


# In enhanced multi-frame files rescaling and window stand in these sequences, of a frame or shared by all frames.
_OF_A_FRAME = ("PixelValueTransformationSequence", "FrameVOILUTSequence")


def _attributes(dataset: Dataset, index: int) -> Dataset:
    """Return what says how a frame is shown: the frame's own before what all frames share before the file's."""
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [])[:1]
    own = (dataset.get("PerFrameFunctionalGroupsSequence") or [])[index : index + 1]
    attributes = Dataset()
    attributes.file_meta = dataset.file_meta  # says how the bytes of a table are ordered
    for name in (
        *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "VOILUTSequence", "PixelPaddingValue"),
        *("WindowCenter", "WindowWidth", "VOILUTFunction", "PixelPaddingRangeLimit", "PixelRepresentation"),
        *("PhotometricInterpretation", "PresentationLUTShape", "BitsStored"),
    ):
        if name in dataset:
            attributes[name] = dataset[name]
    for group in (*shared, *own):
        for sequence in _OF_A_FRAME:
            for item in (group.get(sequence) or [])[:1]:
                attributes.update(item)
    return attributes


def _grey(stored: np.ndarray, attributes: Dataset, presentation: Presentation) -> np.ndarray:
    padded = _padded(stored, attributes)
    values, lowest, highest = _modality(stored, attributes)
    shown = _windowed(values, lowest, highest, padded, attributes, presentation.window)
    if attributes.PhotometricInterpretation == "MONOCHROME1" or attributes.get("PresentationLUTShape") == "INVERSE":
        shown = 1 - shown  # both say the same thing: once
    if padded is not None:
        shown[padded] = 0  # what is not image is background
    return shown


def _padded(stored: np.ndarray, attributes: Dataset) -> np.ndarray | None:
    """Return where the frame is filled up with a value that is no measurement, ``[H, W]``."""
    value = attributes.get("PixelPaddingValue")
    if value is None:
        return None
    limit = attributes.get("PixelPaddingRangeLimit")
    limits = sorted((int(value), int(value if limit is None else limit)))
    return (stored >= limits[0]) & (stored <= limits[1])


def _modality(stored: np.ndarray, attributes: Dataset) -> tuple[np.ndarray, float, float]:
    """Return the values in the file's units, and the lowest and highest that can be stored."""
    bits = int(attributes.BitsStored)
    first = -(2 ** (bits - 1)) if int(attributes.PixelRepresentation) else 0
    if attributes.get("ModalityLUTSequence"):
        table = attributes.ModalityLUTSequence[0]
        return apply_modality_lut(stored, attributes).astype(np.float32), 0.0, float(2 ** _depth(table) - 1)
    slope, intercept = _finite(attributes.get("RescaleSlope"), 1), _finite(attributes.get("RescaleIntercept"), 0)
    ends = sorted((first * slope + intercept, (first + 2**bits - 1) * slope + intercept))
    values: np.ndarray = stored.astype(np.float64 if bits > 16 else np.float32)
    return values * slope + intercept, ends[0], ends[1]


def _windowed(
    values: np.ndarray, lowest: float, highest: float, padded: np.ndarray | None, attributes: Dataset, window: str
) -> np.ndarray:
    if window == "file" and attributes.get("VOILUTSequence"):
        table = attributes.VOILUTSequence[0]
        shown = apply_voi(np.rint(values).astype(np.int32), attributes)
        return np.clip(shown.astype(np.float32) / np.float32(2 ** _depth(table) - 1), 0, 1)
    if window == "file" and attributes.get("WindowCenter") is not None and attributes.get("WindowWidth") is not None:
        centre, width = _finite(attributes.WindowCenter, 0), _finite(attributes.WindowWidth, 0)
        return _stretched(values, centre, width, str(attributes.get("VOILUTFunction") or "LINEAR"))
    if window not in WINDOWS:
        return _stretched(values, *centre_and_width(window), "LINEAR_EXACT")
    if window == "minmax":
        kept = values if padded is None else values[~padded]
        lowest, highest = (float(kept.min()), float(kept.max())) if kept.size else (0.0, 0.0)
    return stretch(values, lowest, highest)


def _stretched(values: np.ndarray, centre: float, width: float, function: str) -> np.ndarray:
    """Apply a window: PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    if width <= 0 or (function == "LINEAR" and width < 1):
        raise Refusal(Reason.CORRUPT_HEADER)
    if function == "SIGMOID":
        return (1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -80, 80)))).astype(np.float32)
    if function == "LINEAR":
        if width == 1:
            return (values > centre - 0.5).astype(np.float32)
        return stretch(values, centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2)
    if function == "LINEAR_EXACT":
        return stretch(values, centre - width / 2, centre + width / 2)
    raise Refusal(Reason.CORRUPT_HEADER)


def stretch(values: np.ndarray, lowest: float, highest: float) -> np.ndarray:
    """Map ``lowest`` to 0 and ``highest`` to 1 (it may be the smaller); the rest is cut off. Equal ends give 0."""
    if highest == lowest:
        return np.zeros(values.shape, np.float32)
    return np.clip((values - lowest) / (highest - lowest), 0, 1).astype(np.float32)


def _depth(table: Dataset) -> int:
    depth = int(table.LUTDescriptor[2])
    if not 8 <= depth <= 16:
        raise Refusal(Reason.CORRUPT_HEADER)
    return depth


def _finite(value: Any, default: float) -> float:
    """Return a number of the header, the first of several; ``default`` where there is none."""
    first = value[0] if isinstance(value, (MultiValue, list)) else value
    number = default if first in (None, "") else float(first)
    if not math.isfinite(number):
        raise Refusal(Reason.NON_FINITE)
    return number
