"""One picture of a DICOM file: stored values, modality, window, inversion, colour, frames, and what is refused."""

from __future__ import annotations

import math
import shutil
import subprocess
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.pixels import get_decoder
from pydicom.pixels.decoders.base import _PIXEL_DATA_DECODERS
from pydicom.sequence import Sequence
from pydicom.uid import UID

from scripts.decoding.dicom import OWN_MANUFACTURER, describe_dicom, forbid_other_decoders, read_dicom, read_header
from scripts.decoding.presentation import Presentation
from scripts.decoding.reasons import WAIVABLE, Reason, Refusal

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
        ({"BitsStored": 6, "HighBit": 7}, Reason.CORRUPT_HEADER),
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
    header, dataset = Dataset.from_json(read_header(path, 2**20)), pydicom.dcmread(path)
    for name in ("PatientName", "PatientID", "StudyInstanceUID", "SOPInstanceUID", "StudyDate", "PatientSex"):
        assert header[name] == dataset[name], name
    assert not any(name in header for name in ("InstitutionName", "PixelData", "Rows"))


@pytest.mark.parametrize(
    ("name", "value"), [("StudyDate", "last week"), ("StudyInstanceUID", "05fa.x"), ("StudyID", "a" * 17)]
)
def test_what_is_not_valid_is_not_repeated(tmp_path: Path, scans: Any, name: str, value: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom says so too
        path = scans.dicom(tmp_path / "a", GREY8, **{name: value})
        header = Dataset.from_json(read_header(path, 2**20))
    assert name not in header
    assert header.PatientID == "4711"


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
