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
import zlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import pydicom
from PIL import Image
from pydicom.config import IGNORE, RAISE
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.filereader import read_dataset
from pydicom.multival import MultiValue
from pydicom.pixels import apply_color_lut, get_decoder, pixel_array
from pydicom.pixels.utils import get_j2k_parameters
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from scripts.imaging.decoding.lookup import lookup_table
from scripts.imaging.decoding.presentation import WINDOWS, Presentation, centre_and_width
from scripts.imaging.decoding.reasons import Reason, Refusal, refusing
from scripts.imaging.decoding.values import Values, aspect_of, in_steps, require_few

# Decoders that survive broken files. Others that happen to be installed are not asked: gdcm kills the interpreter on
# damaged JPEG, pylibjpeg-rle panics.
_JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
_JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
_HTJ2K = ("1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203")
_JPEG_BASELINE, _JPEG_EXTENDED = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"
_PLUGINS: dict[str, tuple[str, ...]] = {
    _JPEG_BASELINE: ("pillow",),
    _JPEG_EXTENDED: ("pillow",),
    **dict.fromkeys(_JPEG_LS, ("pyjpegls",)),
    **dict.fromkeys(_JPEG_2000, ("pylibjpeg", "pillow")),
    **dict.fromkeys(_HTJ2K, ("pylibjpeg",)),
    "1.2.840.10008.1.2.5": ("pydicom",),
}
_NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2")
JPEG_LOSSLESS = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")

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

IDENTIFIERS = (
    *("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate"),
    *("StudyDate", "StudyTime", "StudyID", "AccessionNumber"),
)
"""By which an archive files a result: one that loses them is another patient's, or of another study."""

_IMAGE = (
    *("SeriesInstanceUID", "SeriesNumber", "SOPClassUID", "SOPInstanceUID", "InstanceNumber", "NumberOfFrames"),
    *("Modality", "PatientOrientation", "Laterality", "BurnedInAnnotation"),
)
_CODE = ("CodeValue", "LongCodeValue", "URNCodeValue", "CodingSchemeDesignator", "CodingSchemeVersion", "CodeMeaning")
_GREY = ("MONOCHROME1", "MONOCHROME2")
_HEAD = 2**12  # bytes, within which the meta information says the transfer syntax
_CHUNK, _INFLATED_CHUNK = 2**14, 2**20
_DEFERRED, _KEPT = 2**20, 2**26  # bytes of an element that is read when it is asked for; of a file that is kept
_PIXEL_DATA = 0x7FE00008  # Float Pixel Data is the first of the three
_PREAMBLE, _LENGTH = 132, 12  # bytes before the element that says how long the meta information is, and its own
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")


def readable_syntaxes() -> tuple[str, ...]:
    """Return the transfer syntaxes that are read here, uncompressed ones first."""
    return (*_NATIVE, *_PLUGINS, *(JPEG_LOSSLESS if _dcmdjpeg() else ()))


def forbid_other_decoders() -> None:
    """Take every decoder out of pydicom's tables that is not in ours."""
    for uid in (*_PLUGINS, *JPEG_LOSSLESS):
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
    dataset = _parsed(path, presentation)
    with refusing(Reason.CORRUPT_HEADER):  # pydicom reads an element when it is asked for it
        frames = _checked(dataset, presentation)
        return _picture(dataset, picture, frames, presentation)


def _picture(dataset: Dataset, picture: str, frames: int, presentation: Presentation) -> np.ndarray:
    if picture == "mean":
        total = _frame(dataset, 0, presentation).astype(np.float64)
        for index in range(1, frames):
            total += _frame(dataset, index, presentation)
        return (total / frames).astype(np.float32)
    return _frame(dataset, _index(dataset, picture, frames), presentation)


def dicom_values(path: str, picture: str, presentation: Presentation) -> Values:
    """Read what was measured, of one frame or of all.

    Args:
        path: the file.
        picture: a frame's number from 0, or ``middle``; ``""`` and ``mean``: all frames.
        presentation: the window that is shown at first, and what is accepted.

    Raises:
        Refusal: with the reason; ``unsupported_kind`` for colours.
    """
    dataset = _parsed(path, presentation)
    with refusing(Reason.CORRUPT_HEADER):
        frames = _checked(dataset, presentation)
        if str(dataset.PhotometricInterpretation) not in _GREY:
            raise Refusal(Reason.UNSUPPORTED_KIND)
        wanted = [*range(frames)] if picture in ("", "mean") else [_index(dataset, picture, frames)]
        require_few(len(wanted) * int(dataset.Rows) * int(dataset.Columns))
        attributes = _attributes(dataset, wanted[0])
        measured = np.stack([_measured(dataset, index) for index in wanted])
        linear = not attributes.get("ModalityLUTSequence")
        steps, lowest, step = in_steps(measured, abs(_finite(attributes.get("RescaleSlope"), 1)) if linear else 1.0)
        black, white = _first_window(attributes, presentation.window) or (lowest, lowest + step * int(steps.max()))
        hounsfield = str(dataset.get("Modality")) == "CT"
        aspect = _aspect(dataset, wanted[0])
        return Values(steps, lowest, step, black, white, _is_inverted(attributes), hounsfield, aspect)


def _measured(dataset: Dataset, index: int) -> np.ndarray:
    """Return a frame's values in the file's units, ``[H, W]``; what is not image is as dark as the darkest that is."""
    stored, attributes = _stored(dataset, index), _attributes(dataset, index)
    if stored.shape != (int(dataset.Rows), int(dataset.Columns)):
        raise Refusal(Reason.CORRUPT_PIXELS)
    padded = _padded(stored, attributes)
    values = _modality(stored, attributes)[0]
    if padded is not None and padded.any() and not padded.all():
        image = values[~padded]
        values[padded] = image.max() if _is_inverted(attributes) else image.min()
    return values


def _aspect(dataset: Dataset, index: int) -> float:
    """Return the height of a frame's pixel over its width: from the distances of rows and columns, or their ratio."""
    measures = [item for group in _groups(dataset, index) for item in (group.get("PixelMeasuresSequence") or [])[:1]]
    for place in (*measures[::-1], dataset):
        for name in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio"):
            if name not in place:
                continue
            try:
                height, width = map(float, place[name].value)
            except Exception:  # whatever pydicom raises on a broken value
                continue
            return aspect_of(height, width)
    return 1.0


def _first_window(attributes: Dataset, window: str) -> tuple[float, float] | None:
    """Return the values that become black and white, where the settings or the file name a window."""
    if window not in WINDOWS:
        centre, width = centre_and_width(window)
    elif window == "file" and attributes.get("WindowCenter") is not None and attributes.get("WindowWidth") is not None:
        centre, width = _finite(attributes.WindowCenter, 0), _finite(attributes.WindowWidth, 0)
    else:
        return None
    return (centre - width / 2, centre + width / 2) if width > 0 else None


def describe_dicom(path: str, key: bytes, presentation: Presentation) -> dict[str, Any]:
    """Say of a file what is needed to group and order files, and nothing of the patient.

    Returns:
        ``pictures``: number of frames; ``patient``: HMAC of the PatientID, of the study where there is none, ``None``
        where there is neither; ``series``: HMAC of the series; ``position``: along the axis of the slices.
    """
    dataset = _parsed(path, presentation)
    with refusing(Reason.CORRUPT_HEADER):
        return {
            "pictures": _frames(dataset),
            "patient": _code(key, dataset.get("PatientID") or dataset.get("StudyInstanceUID")),
            "series": _code(key, dataset.get("SeriesInstanceUID")),
            "position": _position(dataset),
        }


def read_header(path: str, presentation: Presentation) -> dict[str, Any]:
    """Return what a result about a file's image repeats of its header; see :func:`header_dataset`.

    Identifiers are as the image has them, valid or not: too long, dates with dots. Of the others, what contradicts its
    value representation (a size that is none, a UID of letters) is left out.

    Returns:
        A text by keyword, a list of several, of a sequence a list of the same for each item; ``None`` for an identifier
        that cannot be read in the character set which the file names.

    Raises:
        Refusal: with the reason.
    """
    dataset = _parsed(path, presentation)
    header: dict[str, Any] = {}
    for name in (*PATIENT_AND_STUDY, *_IMAGE):
        if name not in dataset:
            continue
        try:
            header[name] = _texts(dataset[name], IGNORE if name in IDENTIFIERS else RAISE)
        except Exception:  # whatever pydicom raises on a broken value
            if name in IDENTIFIERS:
                header[name] = None
    return header


def _texts(element: DataElement, validation: int) -> Any:
    """Return the texts of an element, one or a list, or of a sequence the codes.

    Raises:
        Exception: of any kind, when it holds no text, or what ``validation`` does not allow of its kind.
    """
    value, kind = element.value, dictionary_VR(element.tag)  # whatever VR the file says
    if (kind == "SQ") != (element.VR == "SQ") or isinstance(value, bytes):
        raise ValueError
    if kind == "SQ":
        return [{name: _texts(item[name], validation) for name in _CODE if name in item} for item in value]
    texts = ["" if part is None else str(part) for part in (value if element.VM > 1 else [value])]
    if any("\ufffd" in text for text in texts):  # in place of what could not be read
        raise ValueError
    found = texts if element.VM > 1 else texts[0]
    DataElement(element.tag, kind, found, validation_mode=validation)
    return found


def header_dataset(header: Mapping[str, Any]) -> Dataset:
    """Return what :func:`read_header` says as a data set, nothing of it changed; what is unreadable is left out.

    No value is checked: what pydicom finds odd would be said in the log, and names patients.
    """
    dataset = Dataset()
    for name, value in header.items():
        if value is not None:
            kind = dictionary_VR(name)
            content = [header_dataset(item) for item in value] if kind == "SQ" else value
            dataset.add(DataElement(name, kind, content, validation_mode=IGNORE))
    return dataset


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


def _parsed(path: str, presentation: Presentation) -> Dataset:
    """Parse a file; the last one is kept, for its other frames, unless it is large.

    Pixels stay on the disk until they are asked for, and a deflated file is inflated in pieces before it is whole: what
    is not taken takes no memory.
    """
    if os.path.getsize(path) > presentation.max_bytes:
        raise Refusal(Reason.TOO_LARGE)
    modified = os.stat(path).st_mtime_ns
    size = _size(path, modified, presentation)
    return (_last if size <= _KEPT else _last.__wrapped__)(path, modified)


@lru_cache(maxsize=1)
def _last(path: str, modified: int) -> Dataset:
    with refusing(Reason.CORRUPT_HEADER):
        dataset = pydicom.dcmread(path, force=True, defer_size=None if _is_deflated(path) else _DEFERRED)
    if len(dataset) == 0:
        raise Refusal(Reason.CORRUPT_HEADER)
    if not dataset.file_meta.get("TransferSyntaxUID"):
        with refusing(Reason.CORRUPT_HEADER):
            dataset.file_meta.TransferSyntaxUID = _unsaid_syntax(dataset)
    return dataset


def _is_deflated(path: str) -> bool:
    with open(path, "rb") as file:
        return DeflatedExplicitVRLittleEndian.encode() in file.read(_HEAD)


@lru_cache(maxsize=1)
def _size(path: str, modified: int, presentation: Presentation) -> int:
    """Return how many bytes a file has, inflated where it is deflated.

    Raises:
        Refusal: it inflates to more bytes, or its head names more pixels, than are allowed.
    """
    if not _is_deflated(path):
        return os.path.getsize(path)
    with refusing(Reason.CORRUPT_HEADER), open(path, "rb") as file:
        length = int(pydicom.filereader.read_file_meta_info(path).FileMetaInformationGroupLength)
        file.seek(_PREAMBLE + _LENGTH + length)
        inflater, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
        while chunk := inflater.unconsumed_tail or file.read(_CHUNK):
            inflated = inflater.decompress(chunk, _INFLATED_CHUNK)
            if size == 0:
                _require_pixels(_header(inflated), presentation)
            size += len(inflated)
            if size > presentation.max_bytes:
                raise Refusal(Reason.TOO_LARGE)
        return size


def _header(head: bytes) -> Dataset:
    """Return what stands before the pixels in the first bytes of a data set; nothing where they are broken."""
    try:
        return read_dataset(io.BytesIO(head), False, True, stop_when=lambda tag, *_: tag >= _PIXEL_DATA)
    except Exception:  # whatever pydicom raises: it is said once the whole is read
        return Dataset()


def _require_pixels(dataset: Dataset, presentation: Presentation) -> None:
    """Refuse an image of more pixels than are allowed."""
    sides = (int(dataset.get(name) or 0) for name in ("Rows", "Columns"))
    if math.prod(sides) * _frames(dataset) > presentation.max_pixels:
        raise Refusal(Reason.TOO_LARGE)


def _unsaid_syntax(dataset: Dataset) -> UID:
    """Return the transfer syntax of a file that names none: with or without VRs, as its first element is written.

    Raises:
        Refusal: when the pixels are compressed, and nothing says how.
    """
    if "PixelData" in dataset and dataset["PixelData"].is_undefined_length:
        raise Refusal(Reason.UNSUPPORTED_TRANSFER_SYNTAX)
    implicit, little_endian = dataset.original_encoding
    if implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if little_endian else ExplicitVRBigEndian


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
    _require_pixels(dataset, presentation)
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
    high = int(dataset.get("HighBit", stored - 1))
    if rows < 1 or columns < 1 or not 1 <= stored <= high + 1 <= allocated:
        raise Refusal(Reason.CORRUPT_HEADER)
    if int(dataset.PixelRepresentation) not in (0, 1):
        raise Refusal(Reason.CORRUPT_HEADER)
    colours = str(dataset.PhotometricInterpretation)
    if colours not in (*_GREY, *_COLOUR, "PALETTE COLOR"):
        raise Refusal(Reason.UNSUPPORTED_KIND)
    if samples != (3 if colours in _COLOUR else 1):
        raise Refusal(Reason.CORRUPT_HEADER)


def _check_syntax(dataset: Dataset) -> None:
    if str(dataset.file_meta.TransferSyntaxUID) not in readable_syntaxes():
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


def _index(dataset: Dataset, picture: str, frames: int) -> int:
    if picture == "" and frames > 1:
        in_time = any(dataset.get(name) for name in ("FrameTime", "FrameTimeVector", "CineRate"))
        raise Refusal(Reason.TIME_AXIS if in_time else Reason.MANY_PICTURES)
    if picture in ("", "middle"):
        return frames // 2
    if not (picture.isascii() and picture.isdigit()) or int(picture) >= frames:
        raise Refusal(Reason.NO_SUCH_PICTURE)
    return int(picture)


def _frame(dataset: Dataset, index: int, presentation: Presentation) -> np.ndarray:
    stored = _stored(dataset, index)
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
    if _dcmdjpeg() and (syntax in JPEG_LOSSLESS or (syntax == _JPEG_EXTENDED and int(dataset.BitsAllocated) > 8)):
        dataset = _decompressed(str(dataset.filename), os.stat(str(dataset.filename)).st_mtime_ns)
    elif syntax == _JPEG_EXTENDED and int(dataset.BitsAllocated) > 8:
        raise Refusal(Reason.UNSUPPORTED_TRANSFER_SYNTAX)
    with refusing(Reason.CORRUPT_PIXELS):
        if syntax in (_JPEG_BASELINE, _JPEG_EXTENDED) and int(dataset.SamplesPerPixel) == 3:
            return _jpeg_colours(_compressed(dataset, index), str(dataset.PhotometricInterpretation))
        words = _words(dataset, index)
        return _in_bits(words, int(dataset.BitsStored), _high_bit(dataset, index))


def _words(dataset: Dataset, index: int) -> np.ndarray:
    """Return what one frame's bytes are; of a large file they are all that is read."""
    path = str(dataset.filename)
    element = dataset.get_item("PixelData", keep_deferred=True)
    if isinstance(element, RawDataElement) and element.value is None and os.path.getsize(path) > _KEPT:
        syntax = dataset.file_meta.TransferSyntaxUID
        return pixel_array(path, index=index, correct_unused_bits=False, transfer_syntax_uid=syntax)
    return pixel_array(dataset, index=index, correct_unused_bits=False)


def _compressed(dataset: Dataset, index: int) -> bytes:
    offsets = None
    if "ExtendedOffsetTable" in dataset:
        offsets = (dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths)
    return get_frame(dataset.PixelData, index, extended_offsets=offsets, number_of_frames=_frames(dataset))


def _jpeg_colours(jpeg: bytes, interpretation: str) -> np.ndarray:
    """Decode a JPEG of three components to RGB, uint8 ``[H, W, 3]``.

    A JFIF or Adobe marker, or components called R, G and B, decide what the components are, whatever the header says,
    as libjpeg reads them. Without any of these the header decides (PS3.5 8.2.1), but red, green and blue are never
    stored at less than full size: those are luminance and chrominance, of a header that was not brought up to date.
    """
    image: Any = Image.open(io.BytesIO(jpeg), formats=("JPEG",))
    marked = "jfif" in image.info or "adobe" in image.info
    sizes = {component[1:3] for component in image.layer}
    if interpretation == "RGB" and not marked and len(sizes) == 1 and not _named_rgb(image):
        image.draft("YCbCr", image.size)  # libjpeg takes them for that, and leaves them as they are
    return np.array(image)


def _named_rgb(image: Any) -> bool:
    return bytes(component[0] for component in image.layer).upper() == b"RGB"


def _in_bits(words: np.ndarray, bits: int, high: int) -> np.ndarray:
    """Return the values that words hold in ``bits`` bits up to bit ``high``; the others may hold anything, PS3.5 8.1.1.

    Args:
        words: of integers, signed where the values are (an overlay or nothing at all is above and below them).
        bits: BitsStored.
        high: HighBit.
    """
    if words.dtype.kind not in "ui":
        raise Refusal(Reason.UNSUPPORTED_KIND)
    size = 8 * words.dtype.itemsize
    bits = min(bits, size)  # a code stream may have fewer
    if bits < size:
        words = words << (size - 1 - max(bits - 1, min(high, size - 1)))
        words >>= size - bits
    return words


def _high_bit(dataset: Dataset, index: int) -> int:
    """Return the highest bit of a frame's values: a code stream of fewer bits than the header says has no higher."""
    bits, syntax = int(dataset.BitsStored), str(dataset.file_meta.TransferSyntaxUID)
    high = int(dataset.get("HighBit", bits - 1))
    if high == bits - 1:
        return high
    if syntax in (*_JPEG_2000, *_HTJ2K):
        return min(high, int(get_j2k_parameters(_compressed(dataset, index))["precision"]) - 1)
    if syntax in _JPEG_LS:
        frame = _compressed(dataset, index)
        return min(high, frame[frame.index(b"\xff\xf7") + 4] - 1)  # behind its marker and length: ISO 14495-1 C.2.2
    return high


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


def _groups(dataset: Dataset, index: int) -> list[Dataset]:
    """Return what an enhanced file says of a frame: what all frames share, then the frame's own."""
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [])[:1]
    own = (dataset.get("PerFrameFunctionalGroupsSequence") or [])[index : index + 1]
    return [*shared, *own]


def _attributes(dataset: Dataset, index: int) -> Dataset:
    """Return what says how a frame is shown: the frame's own before what all frames share before the file's."""
    attributes = Dataset()
    attributes.file_meta = dataset.file_meta  # says how the bytes of a table are ordered
    for name in (
        *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "VOILUTSequence", "PixelPaddingValue"),
        *("WindowCenter", "WindowWidth", "VOILUTFunction", "PixelPaddingRangeLimit", "PixelRepresentation"),
        *("PhotometricInterpretation", "PresentationLUTShape", "BitsStored"),
    ):
        if name in dataset:
            attributes[name] = dataset[name]
    for group in _groups(dataset, index):
        for sequence in _OF_A_FRAME:
            for item in (group.get(sequence) or [])[:1]:
                attributes.update(item)
    return attributes


def _grey(stored: np.ndarray, attributes: Dataset, presentation: Presentation) -> np.ndarray:
    padded = _padded(stored, attributes)
    values, lowest, highest = _modality(stored, attributes)
    shown = _windowed(values, lowest, highest, padded, attributes, presentation.window)
    if _is_inverted(attributes):
        shown = 1 - shown
    if padded is not None:
        shown[padded] = 0  # what is not image is background
    return shown


def _is_inverted(attributes: Dataset) -> bool:
    """Say whether low values are bright; two attributes say the same thing."""
    shape = attributes.get("PresentationLUTShape")
    return bool(attributes.PhotometricInterpretation == "MONOCHROME1" or shape == "INVERSE")


def _padded(stored: np.ndarray, attributes: Dataset) -> np.ndarray | None:
    """Return where the frame is filled up with a value that is no measurement, ``[H, W]``."""
    value = attributes.get("PixelPaddingValue")
    if value is None:
        return None
    limit = attributes.get("PixelPaddingRangeLimit")
    ends = sorted(_as_stored(int(end), attributes) for end in (value, value if limit is None else limit))
    return (stored >= ends[0]) & (stored <= ends[1])


def _as_stored(value: int, attributes: Dataset) -> int:
    """Return the stored value of the same bits: a number of 16 bits may be written as US or SS, whatever pixels are."""
    bits = min(16, int(attributes.BitsStored))
    value &= 2**bits - 1
    return value - 2**bits if int(attributes.PixelRepresentation) and value >> (bits - 1) else value


def _modality(stored: np.ndarray, attributes: Dataset) -> tuple[np.ndarray, float, float]:
    """Return the values in the file's units, and the lowest and highest that can be stored."""
    bits = int(attributes.BitsStored)
    first = -(2 ** (bits - 1)) if int(attributes.PixelRepresentation) else 0
    if attributes.get("ModalityLUTSequence"):
        table = lookup_table(attributes.ModalityLUTSequence[0], first < 0, _big_endian(attributes))
        return table(stored.astype(np.int64)), 0.0, table.top
    slope, intercept = _finite(attributes.get("RescaleSlope"), 1), _finite(attributes.get("RescaleIntercept"), 0)
    if slope == 0:
        raise Refusal(Reason.ZERO_SLOPE)
    ends = sorted((first * slope + intercept, (first + 2**bits - 1) * slope + intercept))
    values: np.ndarray = stored.astype(np.float64 if bits > 16 else np.float32)
    return values * slope + intercept, ends[0], ends[1]


def _windowed(
    values: np.ndarray, lowest: float, highest: float, padded: np.ndarray | None, attributes: Dataset, window: str
) -> np.ndarray:
    if window == "file" and attributes.get("VOILUTSequence"):
        table = lookup_table(attributes.VOILUTSequence[0], lowest < 0, _big_endian(attributes))
        np.rint(np.clip(values, -(2**17), 2**17, out=values), out=values)  # no table reaches further
        return stretch(table(values.astype(np.int64)), 0, table.top)
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


def _big_endian(attributes: Dataset) -> bool:
    return bool(attributes.file_meta.TransferSyntaxUID == ExplicitVRBigEndian)


def _finite(value: Any, default: float) -> float:
    """Return a number of the header, the first of several; ``default`` where there is none."""
    first = value[0] if isinstance(value, (MultiValue, list)) else value
    number = default if first in (None, "") else float(first)
    if not math.isfinite(number):
        raise Refusal(Reason.NON_FINITE)
    return number
