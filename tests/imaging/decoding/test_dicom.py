"""One picture of a DICOM file: stored values, modality, window, inversion, colour, frames, and what is refused."""

from __future__ import annotations

import io
import math
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.pixels.decoders.base import _PIXEL_DATA_DECODERS
from pydicom.sequence import Sequence
from pydicom.uid import UID

from scripts.imaging.decoding.dicom import (
    IDENTIFIERS,
    OWN_MANUFACTURER,
    describe_dicom,
    forbid_other_decoders,
    header_dataset,
    read_dicom,
    read_header,
)
from scripts.imaging.decoding.presentation import Presentation
from scripts.imaging.decoding.reasons import WAIVABLE, Reason, Refusal

SYNTAXES = {
    "implicit": "1.2.840.10008.1.2",
    "explicit": "1.2.840.10008.1.2.1",
    "deflated": "1.2.840.10008.1.2.1.99",
    "big endian": "1.2.840.10008.1.2.2",
    "RLE": "1.2.840.10008.1.2.5",
    "JPEG-LS": "1.2.840.10008.1.2.4.80",
    "JPEG 2000": "1.2.840.10008.1.2.4.90",
}
JPEG_LOSSLESS = ["1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"]
RNG = np.random.default_rng(0)
ROWS, COLUMNS = 34, 47  # encoders of JPEG 2000 want 32 at least
STEPS = 3 * np.arange(ROWS)[:, None] + 2 * np.arange(COLUMNS) + RNG.integers(0, 9, (ROWS, COLUMNS))
GREY8 = STEPS.astype(np.uint8)
GREY12 = (20 * STEPS).astype(np.uint16)
SIGNED = (20 * STEPS - 2048).astype(np.int16)
COLOUR = np.stack([GREY8, GREY8 // 2, 255 - GREY8], axis=2)
FRAMES = RNG.integers(0, 256, (5, 7, 10), dtype=np.uint8)


def shown(path: str, picture: str = "", **settings: Any) -> np.ndarray:
    return read_dicom(path, picture, Presentation(**settings))


def reason_of(path: str, picture: str = "", **settings: Any) -> Reason:
    with pytest.raises(Refusal) as refusal:
        shown(path, picture, **settings)
    return refusal.value.reason


def items(**attributes: Any) -> Sequence:
    """Return a sequence of one item."""
    item = Dataset()
    for name, value in attributes.items():
        setattr(item, name, value)
    return Sequence([item])


def table(values: list[int], first: int, bits: int = 8, **more: Any) -> Sequence:
    """Return a look-up table as a sequence."""
    return items(LUTDescriptor=[len(values), first, bits], LUTData=np.array(values, "<u2").tobytes(), **more)


@pytest.mark.parametrize("syntax", SYNTAXES.values(), ids=SYNTAXES)
@pytest.mark.parametrize(
    ("pixels", "bits", "lowest"), [(GREY8, 8, 0), (GREY12, 12, 0), (SIGNED, 12, -2048)], ids=["8", "12", "signed"]
)
def test_every_transfer_syntax_gives_the_stored_picture(
    tmp_path: Path, scans: Any, syntax: str, pixels: np.ndarray, bits: int, lowest: int
) -> None:
    path = scans.dicom(tmp_path / "image", pixels, syntax, BitsStored=bits)
    picture = shown(path)
    assert picture.dtype == np.float32
    np.testing.assert_allclose(picture, (pixels.astype(float) - lowest) / (2**bits - 1), atol=1e-6)


@pytest.mark.parametrize("syntax", SYNTAXES.values(), ids=SYNTAXES)
def test_colours_are_exact_in_every_lossless_syntax(tmp_path: Path, scans: Any, syntax: str) -> None:
    path = scans.dicom(tmp_path / "image", COLOUR, syntax, PhotometricInterpretation="RGB")
    np.testing.assert_array_equal(np.rint(shown(path) * 255), COLOUR)


def test_jpeg_baseline_is_decoded(tmp_path: Path, test_data: Path) -> None:
    film = test_data / "dicom" / "torchxrayvision__1.2.276.0.7230010.3.1.4.8323329.6904.1517875201.850819.dcm"
    assert shown(str(film), accept=(Reason.BURNED_IN,)).shape == (1024, 1024)


@pytest.mark.parametrize(
    ("interpretation", "shape", "inverted"),
    [
        ("MONOCHROME2", None, False),
        ("MONOCHROME2", "IDENTITY", False),
        ("MONOCHROME1", None, True),
        ("MONOCHROME1", "INVERSE", True),
    ],
)
@pytest.mark.parametrize("window", ["file", "range", "minmax", "2048,1000"])
def test_monochrome1_is_inverted_exactly_once(
    tmp_path: Path, scans: Any, interpretation: str, shape: str | None, inverted: bool, window: str
) -> None:
    plain = shown(scans.dicom(tmp_path / "plain", GREY12, BitsStored=12), window=window)
    path = scans.dicom(
        *(tmp_path / "image", GREY12),
        BitsStored=12,
        PhotometricInterpretation=interpretation,
        PresentationLUTShape=shape,
    )
    np.testing.assert_allclose(shown(path, window=window), 1 - plain if inverted else plain, atol=1e-6)


def linear(x: float, c: float, w: float) -> float:
    """PS3.3 C.11.2.1.2.1, as it is printed there, for an output of 0 to 1."""
    if x <= c - 0.5 - (w - 1) / 2:
        return 0.0
    if x > c - 0.5 + (w - 1) / 2:
        return 1.0
    return (x - (c - 0.5)) / (w - 1) + 0.5


def linear_exact(x: float, c: float, w: float) -> float:
    """PS3.3 C.11.2.1.3.2."""
    if x <= c - w / 2:
        return 0.0
    return 1.0 if x > c + w / 2 else (x - c) / w + 0.5


def sigmoid(x: float, c: float, w: float) -> float:
    """PS3.3 C.11.2.1.3.1."""
    return 1 / (1 + math.exp(-4 * (x - c) / w))


@pytest.mark.parametrize(
    ("name", "function"),
    [(None, linear), ("LINEAR", linear), ("LINEAR_EXACT", linear_exact), ("SIGMOID", sigmoid)],
)
def test_window_of_the_file_is_that_of_the_standard(
    tmp_path: Path, scans: Any, name: str | None, function: Any
) -> None:
    path = scans.dicom(
        *(tmp_path / "image", SIGNED),
        RescaleSlope=0.5,
        RescaleIntercept=-10,
        WindowCenter=[40, 300],
        WindowWidth=[400, 1500],
        VOILUTFunction=name,
    )
    expected = [[function(0.5 * float(value) - 10, 40, 400) for value in row] for row in SIGNED]
    np.testing.assert_allclose(shown(path), expected, atol=1e-5)


def test_a_fixed_window_goes_before_that_of_the_file(tmp_path: Path, scans: Any) -> None:
    path = scans.dicom(tmp_path / "image", SIGNED, RescaleIntercept=-24, RescaleSlope=1, WindowCenter=0, WindowWidth=9)
    expected = [[linear_exact(float(value) - 24, 40, 400) for value in row] for row in SIGNED]
    np.testing.assert_allclose(shown(path, window="40,400"), expected, atol=1e-5)


def test_minmax_leaves_padding_out_and_shows_it_as_background(tmp_path: Path, scans: Any) -> None:
    pixels = np.array([[-2000, 10, 20], [30, -2000, 40]], np.int16)
    for interpretation, expected in (
        ("MONOCHROME2", [[0, 0, 1 / 3], [2 / 3, 0, 1]]),
        ("MONOCHROME1", [[0, 1, 2 / 3], [1 / 3, 0, 0]]),
    ):
        path = scans.dicom(
            tmp_path / interpretation, pixels, PixelPaddingValue=-2000, PhotometricInterpretation=interpretation
        )
        np.testing.assert_allclose(shown(path, window="minmax"), expected, atol=1e-6)


def test_a_range_of_padding_values_is_padding(tmp_path: Path, scans: Any) -> None:
    pixels = np.array([[1, 5, 9, 10, 20]], np.uint16)
    path = scans.dicom(tmp_path / "image", pixels, PixelPaddingValue=1, PixelPaddingRangeLimit=9)
    np.testing.assert_allclose(shown(path, window="minmax"), [[0, 0, 0, 0, 1]])


def test_look_up_tables_are_applied_modality_before_voi(tmp_path: Path, scans: Any) -> None:
    pixels = np.array([[0, 1, 2, 3]], np.uint8)
    path = scans.dicom(
        *(tmp_path / "image", pixels),
        ModalityLUTSequence=table([10, 12, 11, 13], 0, 8, ModalityLUTType="US"),
        VOILUTSequence=table([0, 100, 200, 255], 10),
    )
    np.testing.assert_allclose(shown(path) * 255, [[0, 200, 100, 255]], atol=1e-4)
    np.testing.assert_allclose(shown(path, window="range") * 255, [[10, 12, 11, 13]], atol=1e-4)


RAMP = np.tile(np.linspace(0, 4095, 64).astype(np.uint16), (64, 1))
SIGNED_RAMP = np.tile(np.linspace(-32768, 32767, 64).astype(np.int16), (64, 1))
BYTE_RAMP = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (64, 1))
CT = {"BitsStored": 12, "RescaleSlope": 1, "RescaleIntercept": -1024}


def five(path: str, row: int = 2, **settings: Any) -> list[int]:
    """Return five pixels of a row as 8-bit grey."""
    return list(np.rint(255 * shown(path, **settings)[row, [0, 16, 32, 48, 63]]).astype(int).tolist())


def written(descriptor: list[int], entries: np.ndarray, **more: Any) -> Sequence:
    """Return a look-up table, its descriptor as US or, with a negative number, as SS."""
    found = items(**more)
    found[0].add_new("LUTDescriptor", "SS" if min(descriptor) < 0 else "US", descriptor)
    found[0].add_new("LUTData", "OW", entries.tobytes())
    return found


def as_dcmtk_sees(path: str, *options: str) -> np.ndarray:
    """Return the picture that dcmtk makes of a file, 0..255."""
    if shutil.which("dcm2pnm") is None:
        pytest.skip("dcm2pnm is not installed (Debian package dcmtk)")
    done = subprocess.run(["dcm2pnm", *options, path], capture_output=True, check=True)
    with Image.open(io.BytesIO(done.stdout)) as image:
        return np.asarray(image).astype(int)


HOUNSFIELD = np.linspace(0, 65535, 2049).astype("<u2")  # from -1024 to 1024


@pytest.mark.parametrize("first", [-1024, 65536 - 1024], ids=["SS", "US"])
@pytest.mark.parametrize("syntax", ["implicit", "explicit", "RLE", "JPEG-LS"])
def test_a_voi_lut_begins_where_rescaled_values_of_its_sign_do(
    tmp_path: Path, scans: Any, first: int, syntax: str
) -> None:
    voi = written([2049, first, 16], HOUNSFIELD)
    assert five(scans.dicom(tmp_path / "a", RAMP, SYNTAXES[syntax], VOILUTSequence=voi, **CT)) == [
        *(0, 129, 255, 255, 255)
    ]


def test_a_voi_lut_of_values_that_are_never_negative_begins_above_32767(tmp_path: Path, scans: Any) -> None:
    voi = written([1000, 40000, 16], np.linspace(0, 65535, 1000).astype("<u2"))
    pixels = np.array([[39999, 40000, 40333, 40999, 65535]], np.uint16)
    found = np.rint(255 * shown(scans.dicom(tmp_path / "a", pixels, VOILUTSequence=voi)))
    np.testing.assert_array_equal(found, [[0, 0, 85, 255, 255]])


WORDS = np.arange(65536).astype("<u2")
FULL = {"WindowCenter": 32768, "WindowWidth": 65536}
MODALITY_LUTS: dict[str, tuple[np.ndarray, dict[str, Any], list[int]]] = {
    "65536, signed": (
        SIGNED_RAMP,
        {"ModalityLUTSequence": written([0, -32768, 16], WORDS), **FULL},
        [0, 65, 130, 194, 255],
    ),
    "65536, signed, as US": (
        SIGNED_RAMP,
        {"ModalityLUTSequence": written([0, 32768, 16], WORDS), **FULL},
        [0, 65, 130, 194, 255],
    ),
    "12 bits": (
        RAMP,
        {
            "BitsStored": 12,
            "ModalityLUTSequence": written([4096, 0, 12], WORDS[:4096]),
            "WindowCenter": 2048,
            "WindowWidth": 4096,
        },
        [0, 65, 130, 194, 255],
    ),
    "8 bits": (
        BYTE_RAMP,
        {
            "ModalityLUTSequence": written([256, 0, 8], np.arange(256, dtype=np.uint8)),
            "WindowCenter": 128,
            "WindowWidth": 256,
        },
        [0, 64, 129, 194, 255],
    ),
}


@pytest.mark.parametrize(("pixels", "attributes", "expected"), MODALITY_LUTS.values(), ids=MODALITY_LUTS)
def test_modality_luts_are_those_of_the_standard(
    tmp_path: Path, scans: Any, pixels: np.ndarray, attributes: dict[str, Any], expected: list[int]
) -> None:
    path = scans.dicom(tmp_path / "a", pixels, **attributes)
    assert five(path) == expected
    np.testing.assert_allclose(255 * shown(path), as_dcmtk_sees(path, "+Wi", "1"), atol=1.01)


BYTES = np.linspace(0, 255, 4096).astype(np.uint8)
VOI_LUTS: dict[str, tuple[np.ndarray, dict[str, Any]]] = {
    "8 bits, in bytes": (RAMP, {"BitsStored": 12, "VOILUTSequence": written([4096, 0, 8], BYTES)}),
    "8 bits, in words": (RAMP, {"BitsStored": 12, "VOILUTSequence": written([4096, 0, 8], BYTES.astype("<u2"))}),
    "10 bits, both ends": (RAMP, {"BitsStored": 12, "VOILUTSequence": written([1024, 1500, 10], WORDS[:1024])}),
    "13 bits": (RAMP, {"BitsStored": 12, "VOILUTSequence": written([4096, 0, 13], 2 * WORDS[:4096])}),
    "65536": ((SIGNED_RAMP.astype(int) + 32768).astype(np.uint16), {"VOILUTSequence": written([0, 0, 16], WORDS)}),
    "65536, signed": (SIGNED_RAMP, {"VOILUTSequence": written([0, -32768, 16], WORDS)}),
    "rescaled": (RAMP, {**CT, "VOILUTSequence": written([2049, -1024, 16], HOUNSFIELD)}),
}


@pytest.mark.parametrize(("pixels", "attributes"), VOI_LUTS.values(), ids=VOI_LUTS)
def test_voi_luts_show_what_dcmtk_shows(
    tmp_path: Path, scans: Any, pixels: np.ndarray, attributes: dict[str, Any]
) -> None:
    path = scans.dicom(tmp_path / "a", pixels, **attributes)
    np.testing.assert_allclose(255 * shown(path), as_dcmtk_sees(path, "+Wl", "1"), atol=1.01)


def test_a_lut_is_read_in_words_of_either_byte_order(tmp_path: Path, scans: Any) -> None:
    swapped = written([4096, 0, 12], WORDS[:4096].astype(">u2"))
    path = scans.dicom(tmp_path / "a", RAMP, SYNTAXES["big endian"], BitsStored=12, VOILUTSequence=swapped)
    assert five(path) == [0, 65, 130, 194, 255]


def test_a_lut_of_fewer_bits_than_it_says_is_not_dark(tmp_path: Path, scans: Any) -> None:
    voi = written([4096, 0, 16], WORDS[:4096])
    assert five(scans.dicom(tmp_path / "a", RAMP, BitsStored=12, VOILUTSequence=voi)) == [0, 65, 130, 194, 255]


@pytest.mark.parametrize("syntax", SYNTAXES.values(), ids=SYNTAXES)
@pytest.mark.parametrize("signed", [False, True])
def test_bits_above_those_stored_are_no_pixels(tmp_path: Path, scans: Any, syntax: str, signed: bool) -> None:
    words = RAMP.astype(np.int16) - 2048 * signed & 0xFFF
    words[10:20] |= -0x8000  # an old overlay
    path = as_encoders_do(tmp_path / "a", scans, words.astype(np.int16 if signed else np.uint16), syntax, HighBit=11)
    assert five(path, 2) == five(path, 15) == [0, 65, 130, 194, 255]


@pytest.mark.parametrize("syntax", SYNTAXES.values(), ids=SYNTAXES)
@pytest.mark.parametrize("signed", [False, True])
def test_bits_below_those_stored_are_no_pixels(tmp_path: Path, scans: Any, syntax: str, signed: bool) -> None:
    words = (RAMP.astype(np.int16) - 2048 * signed) * 16 | 5
    path = as_encoders_do(tmp_path / "a", scans, words.astype(np.int16 if signed else np.uint16), syntax, HighBit=15)
    assert five(path) == [0, 65, 130, 194, 255]
    if syntax == SYNTAXES["explicit"]:
        np.testing.assert_allclose(255 * shown(path, window="range"), as_dcmtk_sees(path, "+Wi", "1"), atol=1.01)


@pytest.mark.parametrize("syntax", ["JPEG-LS", "JPEG 2000"])
def test_a_code_stream_of_the_bits_stored_alone_is_not_shifted(tmp_path: Path, scans: Any, syntax: str) -> None:
    dataset = scans.make_dicom(RAMP, SYNTAXES[syntax], BitsStored=12)
    dataset.HighBit = 15
    dataset.save_as(tmp_path / "a", enforce_file_format=True)
    assert five(str(tmp_path / "a")) == [0, 65, 130, 194, 255]


def as_encoders_do(path: Path, scans: Any, words: np.ndarray, syntax: str, HighBit: int) -> str:  # noqa: N803
    """Write all 16 bits of words of which 12 are the pixel's, as encoders that do not look at the header do."""
    dataset = scans.make_dicom(words, syntax)
    dataset.BitsStored, dataset.HighBit = 12, HighBit
    dataset.WindowCenter, dataset.WindowWidth = 0 if words.dtype.kind == "i" else 2048, 4096
    dataset.save_as(path, enforce_file_format=True)
    return str(path)


@pytest.mark.parametrize(
    ("pixels", "bits", "padding", "limit"),
    [
        (np.array([[-2000, 0, 10]], np.int16), 16, 63536, None),  # US, signed pixels
        (np.array([[-2000, 0, 10]], np.int16), 12, 63536, None),
        (np.array([[-2000, 0, 10]], np.int16), 12, 2096, None),  # in 12 bits
        (np.array([[63536, 0, 10]], np.uint16), 16, -2000, None),  # SS, unsigned pixels
        (np.array([[4095, 0, 10]], np.uint16), 12, -1, None),
        (np.array([[-1990, 0, 10]], np.int16), 16, 63536, 63600),
        (np.array([[65000, 0, 10]], np.uint16), 16, -2000, -1),
        (np.array([[65000, 0, 10]], np.uint16), 16, -1, -2000),
        (np.array([[-2000, 0, 10]], np.int32), 32, -2000, None),
        (np.array([[-2000, 0, 10]], np.int32), 32, 63536, -1000),
    ],
)
def test_padding_is_known_by_its_bits(
    tmp_path: Path, scans: Any, pixels: np.ndarray, bits: int, padding: int, limit: int | None
) -> None:
    dataset = scans.make_dicom(pixels, BitsStored=bits)
    for name, value in (("PixelPaddingValue", padding), ("PixelPaddingRangeLimit", limit)):
        if value is not None:
            dataset.add_new(name, "SS" if value < 0 else "US", value)
    dataset.save_as(tmp_path / "a", enforce_file_format=True)
    np.testing.assert_allclose(shown(str(tmp_path / "a"), window="minmax"), [[0, 0, 1]])
    dataset.PhotometricInterpretation = "MONOCHROME1"
    dataset.save_as(tmp_path / "b", enforce_file_format=True)
    np.testing.assert_allclose(shown(str(tmp_path / "b"), window="minmax"), [[0, 1, 0]])


STRIPES = np.repeat(np.array([[200, 30, 40], [20, 180, 60], [10, 50, 220]], np.uint8), 16, axis=0)[None].repeat(32, 0)


def jpeg(colours: str, subsampling: int = 0, ids: bytes = b"\1\2\3", marked: bool = False) -> bytes:
    """Return stripes as a JPEG of three components, with its JFIF or Adobe marker or without."""
    file = io.BytesIO()
    Image.fromarray(STRIPES).save(file, "JPEG", quality=100, subsampling=subsampling, keep_rgb=colours == "RGB")
    found, rest = b"\xff\xd8", file.getvalue()[2:]
    while True:
        kind, length = rest[1], 2 + int.from_bytes(rest[2:4], "big")
        segment, rest = bytearray(rest[:length]), rest[length:]
        if kind in (0xC0, 0xDA):  # frame, scan: where components are named
            first, step = (10, 3) if kind == 0xC0 else (5, 2)
            segment[first : first + 3 * step : step] = ids
        if marked or not 0xE0 <= kind <= 0xEF:
            found += segment
        if kind == 0xDA:
            return found + rest


def coloured(path: Path, scans: Any, content: bytes, interpretation: str) -> list[list[int]]:
    """Return the colours of the stripes as they are read."""
    dataset = scans.make_dicom(STRIPES, PhotometricInterpretation="RGB")
    dataset.PhotometricInterpretation = interpretation
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.50"
    dataset.PixelData = encapsulate([content])
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path, enforce_file_format=True)
    return list(np.rint(255 * shown(str(path))[16, [8, 24, 40]]).astype(int).tolist())


TRUE = STRIPES[0, [8, 24, 40]].tolist()


@pytest.mark.parametrize(
    ("content", "interpretation"),
    [
        (jpeg("RGB"), "RGB"),
        (jpeg("RGB", ids=b"\0\1\2"), "RGB"),
        (jpeg("RGB", ids=b"RGB"), "RGB"),
        (jpeg("RGB", ids=b"RGB"), "YBR_FULL_422"),
        (jpeg("YBR"), "YBR_FULL_422"),
        (jpeg("YBR", subsampling=1), "YBR_FULL_422"),
        (jpeg("YBR", subsampling=1), "RGB"),  # red, green and blue are never of different sizes
        (jpeg("YBR", subsampling=2), "RGB"),
        (jpeg("YBR", marked=True), "RGB"),
        (jpeg("RGB", marked=True), "YBR_FULL_422"),  # Adobe's marker says that they are red, green and blue
        (jpeg("RGB", marked=True), "RGB"),
    ],
)
def test_a_jpeg_says_or_its_header_does_which_colours_it_holds(
    tmp_path: Path, scans: Any, content: bytes, interpretation: str
) -> None:
    np.testing.assert_allclose(coloured(tmp_path / "a", scans, content, interpretation), TRUE, atol=2)


def test_frames_of_jpeg_are_told_apart(tmp_path: Path, scans: Any) -> None:
    dataset = scans.make_dicom(np.stack([STRIPES] * 2), PhotometricInterpretation="RGB")
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.50"
    dataset.PixelData = encapsulate([jpeg("RGB"), jpeg("YBR", subsampling=1)])  # each by its own rule
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(tmp_path / "a", enforce_file_format=True)
    for number in (0, 1):
        found = 255 * shown(str(tmp_path / "a"), str(number))[16, [8, 24, 40]]
        np.testing.assert_allclose(found, TRUE, atol=2)


@pytest.mark.parametrize("interpretation", ["RGB", "YBR_FULL_422"])
def test_a_jpeg_without_markers_has_the_colours_that_dcmtk_gives_it(
    tmp_path: Path, scans: Any, interpretation: str
) -> None:
    for colours in ("RGB", "YBR"):
        found = coloured(tmp_path / colours, scans, jpeg(colours), interpretation)
        if shutil.which("dcmj2pnm") is None:
            pytest.skip("dcmj2pnm is not installed (Debian package dcmtk)")
        done = subprocess.run(["dcmj2pnm", tmp_path / colours], capture_output=True, check=True)
        with Image.open(io.BytesIO(done.stdout)) as image:
            np.testing.assert_allclose(found, np.asarray(image)[16, [8, 24, 40]].astype(int), atol=1)


def test_a_jpeg_that_is_cut_short_is_refused(tmp_path: Path, scans: Any) -> None:
    with pytest.raises(Refusal) as refusal:
        coloured(tmp_path / "a", scans, jpeg("RGB")[:-200], "RGB")
    assert refusal.value.reason is Reason.CORRUPT_PIXELS


@pytest.mark.parametrize("syntax", ["implicit", "explicit", "big endian"])
@pytest.mark.parametrize("pixels", [GREY8, GREY12, SIGNED], ids=["8", "12", "signed"])
def test_files_without_meta_information_are_read(tmp_path: Path, scans: Any, syntax: str, pixels: np.ndarray) -> None:
    dataset, whole = scans.make_dicom(pixels, SYNTAXES[syntax]), tmp_path / "whole"
    dataset.save_as(whole, enforce_file_format=True)
    (tmp_path / "no preamble").write_bytes(whole.read_bytes()[132:])
    del dataset.file_meta
    implicit, little_endian = syntax == "implicit", syntax != "big endian"
    dataset.save_as(tmp_path / "no meta", implicit_vr=implicit, little_endian=little_endian)
    (tmp_path / "preamble alone").write_bytes(bytes(128) + b"DICM" + (tmp_path / "no meta").read_bytes())
    assert (tmp_path / "no meta").read_bytes()[:2] in (b"\x08\x00", b"\x00\x08")
    for name in ("no preamble", "no meta", "preamble alone"):
        np.testing.assert_array_equal(shown(str(tmp_path / name)), shown(str(whole)), name)


def test_compressed_pixels_are_refused_where_nothing_says_how(tmp_path: Path, scans: Any) -> None:
    dataset = scans.make_dicom(GREY8, SYNTAXES["RLE"])
    del dataset.file_meta
    dataset.save_as(tmp_path / "a", implicit_vr=False, little_endian=True)
    assert reason_of(str(tmp_path / "a")) is Reason.UNSUPPORTED_TRANSFER_SYNTAX


def test_each_frame_of_an_enhanced_file_has_its_own_rescaling_and_window(tmp_path: Path, scans: Any) -> None:
    frames = [
        items(
            PixelValueTransformationSequence=items(RescaleSlope=slope, RescaleIntercept=0),
            FrameVOILUTSequence=items(WindowCenter=100 * slope, WindowWidth=200 * slope, VOILUTFunction="LINEAR_EXACT"),
        )[0]
        for slope in (1, 2, 3)
    ]
    path = scans.dicom(
        *(tmp_path / "image", FRAMES[:3]),
        PerFrameFunctionalGroupsSequence=Sequence(frames[:2]),
        SharedFunctionalGroupsSequence=Sequence([frames[2]]),
    )
    for number, slope in enumerate((1, 2, 3)):  # the third frame has nothing of its own
        expected = np.clip(slope * FRAMES[number].astype(float) / (200 * slope), 0, 1)
        np.testing.assert_allclose(shown(path, str(number)), expected, atol=1e-6)


@pytest.mark.parametrize("planar", [0, 1])
def test_planes_of_colour_may_come_apart(tmp_path: Path, scans: Any, planar: int) -> None:
    dataset = scans.make_dicom(COLOUR, PhotometricInterpretation="RGB")
    dataset.PlanarConfiguration = planar
    dataset.PixelData = (COLOUR.transpose(2, 0, 1) if planar else COLOUR).tobytes()
    dataset.save_as(tmp_path / "image", enforce_file_format=True)
    np.testing.assert_array_equal(np.rint(shown(str(tmp_path / "image")) * 255), COLOUR)


def test_ybr_becomes_rgb(tmp_path: Path, scans: Any) -> None:
    red = np.broadcast_to(np.array([76, 85, 255], np.uint8), (4, 6, 3)).copy()
    path = scans.dicom(tmp_path / "image", red, PhotometricInterpretation="YBR_FULL")
    np.testing.assert_allclose(shown(path) * 255, np.broadcast_to([255.0, 0, 0], (4, 6, 3)), atol=2)


def test_palette_becomes_rgb(tmp_path: Path, scans: Any) -> None:
    palette = {
        f"{name}PaletteColorLookupTable{part}": value
        for name, entries in (("Red", [0, 255]), ("Green", [10, 20]), ("Blue", [200, 100]))
        for part, value in (("Descriptor", [2, 0, 8]), ("Data", bytes(entries)))
    }
    pixels = np.array([[0, 1, 1]], np.uint8)
    path = scans.dicom(tmp_path / "image", pixels, PhotometricInterpretation="PALETTE COLOR", **palette)
    np.testing.assert_array_equal(np.rint(shown(path) * 255), [[[0, 10, 200], [255, 20, 100], [255, 20, 100]]])


@pytest.mark.parametrize(("picture", "number"), [("0", 0), ("4", 4), ("middle", 2)])
def test_a_frame_is_chosen(tmp_path: Path, scans: Any, picture: str, number: int) -> None:
    path = scans.dicom(tmp_path / "image", FRAMES)
    np.testing.assert_array_equal(np.rint(shown(path, picture) * 255), FRAMES[number])


def test_frames_are_averaged(tmp_path: Path, scans: Any) -> None:
    path = scans.dicom(tmp_path / "image", FRAMES)
    np.testing.assert_allclose(shown(path, "mean"), FRAMES.mean(0) / 255, atol=1e-6)


@pytest.mark.parametrize(
    ("picture", "reason"), [("", Reason.MANY_PICTURES), ("5", Reason.NO_SUCH_PICTURE), ("-1", Reason.NO_SUCH_PICTURE)]
)
def test_a_frame_that_is_not_there_or_not_named_is_refused(
    tmp_path: Path, scans: Any, picture: str, reason: Reason
) -> None:
    assert reason_of(scans.dicom(tmp_path / "image", FRAMES), picture) == reason


@pytest.mark.parametrize("attributes", [{"FrameTime": "33.3"}, {"CineRate": "25"}])
def test_frames_that_follow_in_time_are_refused_as_such(tmp_path: Path, scans: Any, attributes: dict[str, str]) -> None:
    path = scans.dicom(tmp_path / "image", FRAMES, **attributes)
    assert reason_of(path, "") == Reason.TIME_AXIS
    np.testing.assert_array_equal(np.rint(shown(path, "1") * 255), FRAMES[1])


SECONDARY_CAPTURE, ULTRASOUND = "1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.6.1"
MULTI_FRAME_CAPTURE = "1.2.840.10008.5.1.4.1.1.7.2"


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4"}, Reason.UNSUPPORTED_SOP_CLASS),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.77.1.6"}, Reason.UNSUPPORTED_SOP_CLASS),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.481.2"}, Reason.UNSUPPORTED_SOP_CLASS),
        ({"StudyInstanceUID": None}, Reason.MISSING_IDENTIFIERS),
        ({"SeriesInstanceUID": None}, Reason.MISSING_IDENTIFIERS),
        ({"SOPInstanceUID": None}, Reason.MISSING_IDENTIFIERS),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, Reason.LOCALIZER),
        ({"ImageType": ["DERIVED", "SECONDARY"]}, Reason.DERIVED),
        ({"BurnedInAnnotation": "YES"}, Reason.BURNED_IN),
        ({"SOPClassUID": SECONDARY_CAPTURE}, Reason.BURNED_IN),
        ({"SOPClassUID": MULTI_FRAME_CAPTURE}, Reason.BURNED_IN),
        ({"SOPClassUID": ULTRASOUND}, Reason.BURNED_IN),
        ({"PhotometricInterpretation": "HSV"}, Reason.UNSUPPORTED_KIND),
        ({"SamplesPerPixel": 3, "PlanarConfiguration": 0}, Reason.CORRUPT_HEADER),
        ({"BitsStored": 6, "HighBit": 4}, Reason.CORRUPT_HEADER),
        ({"BitsStored": 6, "HighBit": 8}, Reason.CORRUPT_HEADER),
        ({"RescaleSlope": 0, "RescaleIntercept": 0}, Reason.ZERO_SLOPE),
        ({"RescaleSlope": 0, "RescaleIntercept": 5, "WindowCenter": 5, "WindowWidth": 9}, Reason.ZERO_SLOPE),
        ({"Rows": 0}, Reason.CORRUPT_HEADER),
        ({"Rows": None}, Reason.CORRUPT_HEADER),
        ({"NumberOfFrames": -1}, Reason.CORRUPT_HEADER),
        ({"Rows": ROWS + 2}, Reason.CORRUPT_PIXELS),
        ({"WindowCenter": 1, "WindowWidth": 0}, Reason.CORRUPT_HEADER),
        ({"WindowCenter": 1, "WindowWidth": 9, "VOILUTFunction": "CUBIC"}, Reason.CORRUPT_HEADER),
        ({"Rows": 60000, "Columns": 60000}, Reason.TOO_LARGE),
        ({"NumberOfFrames": 10**6}, Reason.TOO_LARGE),
    ],
    ids=str,
)
def test_what_is_refused_and_why(tmp_path: Path, scans: Any, attributes: dict[str, Any], reason: Reason) -> None:
    path = scans.dicom(tmp_path / "image", GREY8, **attributes)
    assert reason_of(path) == reason
    if reason in WAIVABLE:
        np.testing.assert_array_equal(np.rint(shown(path, accept=(reason,)) * 255), GREY8)


@pytest.mark.parametrize("sop_class", ["1.2.840.10008.5.1.4.1.1.77.1.4", "1.2.840.10008.5.1.4.1.1.77.1.4.1"])
def test_photographs_are_no_captures_though_their_numbers_begin_alike(
    tmp_path: Path, scans: Any, sop_class: str
) -> None:
    assert shown(scans.dicom(tmp_path / "image", GREY8, SOPClassUID=sop_class)).shape == GREY8.shape


@pytest.mark.parametrize("name", ["RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth"])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.filterwarnings("ignore")
def test_numbers_that_are_none_are_refused(tmp_path: Path, scans: Any, name: str, value: str) -> None:
    dataset = scans.make_dicom(GREY8, WindowCenter=100, WindowWidth=50, RescaleSlope=1, RescaleIntercept=0)
    dataset[name]._value = value  # pydicom itself would not write it
    dataset.save_as(tmp_path / "image", enforce_file_format=True)
    assert reason_of(str(tmp_path / "image")) in (Reason.NON_FINITE, Reason.CORRUPT_HEADER)


def test_stated_as_free_of_names_is_taken(tmp_path: Path, scans: Any) -> None:
    for number, sop_class in enumerate((SECONDARY_CAPTURE, ULTRASOUND)):
        path = scans.dicom(tmp_path / str(number), GREY8, SOPClassUID=sop_class, BurnedInAnnotation="NO")
        assert shown(path).shape == GREY8.shape


def test_photographs_are_no_secondary_captures(tmp_path: Path, scans: Any) -> None:
    # whose UIDs begin with the same digits
    path = scans.dicom(tmp_path / "a", GREY8, SOPClassUID="1.2.840.10008.5.1.4.1.1.77.1.4")
    assert np.array_equal(np.rint(255 * shown(path)), GREY8)


def test_our_own_results_are_refused_whatever_is_accepted(tmp_path: Path, scans: Any) -> None:
    path = scans.dicom(tmp_path / "a", GREY8, Manufacturer=OWN_MANUFACTURER)
    assert reason_of(path, accept=WAIVABLE) is Reason.OWN_RESULT


def test_the_header_is_what_a_result_repeats(tmp_path: Path, scans: Any) -> None:
    path = scans.dicom(tmp_path / "a", GREY8, StudyDate="20261121", PatientSex="F", InstitutionName="Hospital")
    header, dataset = header_dataset(read_header(path, Presentation())), pydicom.dcmread(path)
    for name in ("PatientName", "PatientID", "StudyInstanceUID", "SOPInstanceUID", "StudyDate", "PatientSex"):
        assert header[name] == dataset[name], name
    assert not any(name in header for name in ("InstitutionName", "PixelData", "Rows"))


@pytest.mark.parametrize(("name", "value"), [("StudyInstanceUID", "05fa.x"), ("PatientAge", "old")])
@pytest.mark.filterwarnings("ignore")  # pydicom says so too
def test_what_is_not_valid_is_not_repeated(tmp_path: Path, scans: Any, name: str, value: str) -> None:
    header = read_header(scans.dicom(tmp_path / "a", GREY8, **{name: value}), Presentation())
    assert name not in header
    assert header["PatientID"] == "4711"


ODD_IDENTIFIERS = {
    "PatientID": "b" * 65,
    "PatientName": "Jane Doe " * 9,
    "IssuerOfPatientID": "c" * 70,
    "PatientBirthDate": "1970.01.31",
    "StudyDate": "last week",
    "StudyTime": "10:15:00",
    "StudyID": "1.2.840.40823.1.1.198",
    "AccessionNumber": "HOSP2024010100012345",
}


@pytest.mark.parametrize("syntax", ["implicit", "explicit"])
@pytest.mark.filterwarnings("ignore")
def test_identifiers_are_repeated_as_the_image_has_them(tmp_path: Path, scans: Any, syntax: str) -> None:
    assert set(ODD_IDENTIFIERS) == set(IDENTIFIERS)
    path = scans.dicom(tmp_path / "a", GREY8, SYNTAXES[syntax], **ODD_IDENTIFIERS)
    header = read_header(path, Presentation())
    assert {name: header[name] for name in IDENTIFIERS} == {
        name: value.rstrip() for name, value in ODD_IDENTIFIERS.items()
    }


@pytest.mark.filterwarnings("ignore")
def test_identifiers_of_several_values_and_none(tmp_path: Path, scans: Any) -> None:
    path = scans.dicom(tmp_path / "a", GREY8, PatientID="a\\b", StudyID="", AccessionNumber=None)
    header = read_header(path, Presentation())
    assert (header["PatientID"], header["StudyID"]) == (["a", "b"], "")
    assert "AccessionNumber" not in header
    assert list(header_dataset(header).PatientID) == ["a", "b"]


@pytest.mark.filterwarnings("ignore")
def test_an_identifier_in_another_character_set_than_is_named_is_unreadable(tmp_path: Path, scans: Any) -> None:
    dataset = scans.make_dicom(GREY8, SpecificCharacterSet="ISO_IR 192", PatientID="Muller")
    dataset.save_as(tmp_path / "a", enforce_file_format=True)
    broken = (tmp_path / "a").read_bytes().replace(b"Muller", b"M\xfcller")
    (tmp_path / "a").write_bytes(broken.replace(b"LO\6\0M", b"LO\6\0M"))
    assert read_header(str(tmp_path / "a"), Presentation())["PatientID"] is None


@pytest.mark.filterwarnings("ignore")
def test_an_element_of_another_kind_than_its_own_is_not_repeated(tmp_path: Path, scans: Any) -> None:
    dataset = scans.make_dicom(GREY8)
    for name, kind, value in (
        ("PatientID", "SQ", items(CodeValue="1")),
        ("AccessionNumber", "OB", b"\0\1"),
        ("DeidentificationMethodCodeSequence", "LO", "by hand"),
        ("NumberOfFrames", "LO", "many"),
    ):
        if name in dataset:
            del dataset[name]
        dataset.add_new(name, kind, value)
    dataset.save_as(tmp_path / "a", enforce_file_format=True)
    header = read_header(str(tmp_path / "a"), Presentation())
    assert (header["PatientID"], header["AccessionNumber"]) == (None, None)
    assert not {"DeidentificationMethodCodeSequence", "NumberOfFrames"} & set(header)
    assert "PatientID" not in header_dataset(header)


def test_how_a_name_was_removed_is_repeated(tmp_path: Path, scans: Any) -> None:
    codes = items(CodeValue="113100", CodingSchemeDesignator="DCM", CodeMeaning="Basic Profile", PatientID="x")
    path = scans.dicom(tmp_path / "a", GREY8, DeidentificationMethodCodeSequence=codes, PatientOrientation=["L", "F"])
    header = header_dataset(read_header(path, Presentation()))
    (code,) = header.DeidentificationMethodCodeSequence
    assert (code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning) == ("113100", "DCM", "Basic Profile")
    assert "PatientID" not in code
    assert list(header.PatientOrientation) == ["L", "F"]


def test_no_pixels_and_no_dicom_are_refused(tmp_path: Path, scans: Any) -> None:
    dataset = scans.make_dicom(GREY8)
    del dataset.PixelData
    dataset.save_as(tmp_path / "cut", enforce_file_format=True)
    assert reason_of(str(tmp_path / "cut")) == Reason.CORRUPT_PIXELS
    del dataset.Rows
    dataset.save_as(tmp_path / "report", enforce_file_format=True)
    (tmp_path / "text.dcm").write_text("not DICOM at all")
    assert reason_of(str(tmp_path / "report")) == Reason.NO_PIXELS
    assert reason_of(str(tmp_path / "text.dcm")) in (Reason.CORRUPT_HEADER, Reason.NO_PIXELS)


def test_limits_are_those_of_the_presentation(tmp_path: Path, scans: Any) -> None:
    path = scans.dicom(tmp_path / "image", FRAMES)
    assert reason_of(path, "0", max_pixels=FRAMES.size - 1) == Reason.TOO_LARGE
    assert shown(path, "0", max_pixels=FRAMES.size).shape == FRAMES.shape[1:]
    assert reason_of(path, "0", max_bytes=Path(path).stat().st_size - 1) == Reason.TOO_LARGE


@pytest.fixture(params=JPEG_LOSSLESS, ids=["57", "70"])
def lossless(request: pytest.FixtureRequest, tmp_path: Path, scans: Any) -> str:
    """A file in JPEG lossless, written by dcmtk."""
    if shutil.which("dcmcjpeg") is None:
        pytest.skip("dcmcjpeg is not installed (Debian package dcmtk)")
    plain = scans.dicom(tmp_path / "plain", GREY12, BitsStored=12)
    option = {"57": "+el", "70": "+e1"}[request.param.rpartition(".")[2]]
    subprocess.run(["dcmcjpeg", option, plain, tmp_path / "lossless"], check=True)
    path = str(tmp_path / "lossless")
    assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == request.param
    return path


def test_jpeg_lossless_is_decoded_by_dcmdjpeg(lossless: str) -> None:
    np.testing.assert_allclose(shown(lossless, accept=(Reason.DERIVED,)), GREY12 / 4095, atol=1e-6)


def test_jpeg_lossless_is_refused_without_dcmdjpeg(lossless: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert reason_of(lossless, accept=(Reason.DERIVED,)) == Reason.UNSUPPORTED_TRANSFER_SYNTAX


@pytest.fixture
def restored_decoders() -> Any:
    """Puts back what a test takes out of pydicom's tables, which are global."""
    decoders = [get_decoder(UID(uid)) for uid in _PIXEL_DATA_DECODERS]
    before = [(dict(decoder._available), dict(decoder._unavailable)) for decoder in decoders]
    yield decoders
    for decoder, (available, unavailable) in zip(decoders, before, strict=True):
        decoder._available, decoder._unavailable = available, unavailable


def test_a_decoder_that_breaks_on_broken_files_is_never_asked(restored_decoders: Any) -> None:
    for decoder in restored_decoders:
        if "gdcm" in decoder._unavailable:  # as if gdcm were installed: pydicom would ask it first
            decoder._available = {"gdcm": print, **decoder._available}
            del decoder._unavailable["gdcm"]
    forbid_other_decoders()
    asked = {name for decoder in restored_decoders for name in decoder.available_plugins}
    assert asked == {"pillow", "pyjpegls", "pylibjpeg", "pydicom"}
    assert get_decoder(UID(SYNTAXES["RLE"])).available_plugins == ("pydicom",)


def test_a_description_tells_patients_apart_and_names_nobody(tmp_path: Path, scans: Any) -> None:
    def described(name: str, key: bytes = b"key", **attributes: Any) -> dict[str, Any]:
        return describe_dicom(scans.dicom(tmp_path / name, FRAMES, **attributes), key, Presentation())

    jane, again, other = described("a"), described("b"), described("c", PatientID="4712")
    assert jane["patient"] == again["patient"] != other["patient"]
    assert described("d", key=b"another")["patient"] != jane["patient"]
    assert jane["series"] != again["series"]
    assert jane["pictures"] == 5
    assert not any(word in str(jane) for word in ("4711", "Doe", "0815"))
    nameless = [described(name, PatientID="", StudyInstanceUID="1.2.3")["patient"] for name in ("e", "f")]
    assert nameless[0] == nameless[1] not in (None, jane["patient"])


def test_position_is_along_the_normal_of_the_slice(tmp_path: Path, scans: Any) -> None:
    path = scans.dicom(
        tmp_path / "a", GREY8, ImageOrientationPatient=[0, 1, 0, 0, 0, -1], ImagePositionPatient=[7, 1, 2]
    )
    assert describe_dicom(path, b"", Presentation())["position"] == -7
    path = scans.dicom(tmp_path / "b", GREY8, InstanceNumber=3)
    assert describe_dicom(path, b"", Presentation())["position"] == 3
