"""A result in DICOM: valid, in the study of its image, all that the result says, and the same for the same input."""

from __future__ import annotations

import logging
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from scripts.deploy.dicom.dicom_result import SERIES_DESCRIPTION, dicom_bytes
from scripts.deploy.dicom.reported import read_reports
from scripts.deploy.dicom.structured_report import REASONS, make_class_codes, structured_report
from scripts.imaging.decoding.reasons import ImageRefused, Reason
from scripts.imaging.transforms import read_rgb
from scripts.imaging.transforms.scans import SourceImage, read_source_image
from scripts.model.decisions.results import Doubt, ModelIdentity

CLASSES = ("benign", "skin/naevus", "a name of " + "many " * 20 + "words", "Größe\\Ж")
MODEL = ModelIdentity("skin-dynammo-resnet18", "task_3", "ab" * 32, CLASSES, temperature=1.5, threshold=0.4)
PROBABILITIES = [0.1, 0.6, 0.1, 0.2]
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
PIXELS = np.arange(1200, dtype=np.uint16).reshape(30, 40)
STUDY = {"StudyDate": "20261121", "StudyTime": "101500", "StudyID": "7", "PatientBirthDate": "19700101"}


def source_of(
    folder: Path, scans: Any, pixels: np.ndarray = PIXELS, picture: str = "", **attributes: Any
) -> SourceImage:
    path = scans.dicom(folder / "image", pixels, **{**STUDY, "PatientSex": "F", "InstanceNumber": 12, **attributes})
    source = read_source_image(f"{path}{picture}")
    assert source is not None
    return source


def items(dataset: Dataset) -> Iterator[Dataset]:
    """Go through a report's content items, depth first."""
    for item in dataset.get("ContentSequence", []):
        yield item
        yield from items(item)


def named(report: Dataset, meaning: str) -> list[Dataset]:
    names = (item for item in items(report) if "ConceptNameCodeSequence" in item)
    return [item for item in names if item.ConceptNameCodeSequence[0].CodeMeaning == meaning]


def test_a_report_says_all_that_the_result_says(tmp_path: Path, scans: Any) -> None:
    source, result = source_of(tmp_path, scans), MODEL.judge(PROBABILITIES)
    report = structured_report(result, source)
    assert report.SOPClassUID.name == "Comprehensive 3D SR Storage"
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    (said,) = named(report, "Predicted class")
    assert said.ConceptCodeSequence[0].CodeMeaning == "skin/naevus"
    found = [item for item in items(report) if item.ValueType == "NUM"]
    assert [float(item.MeasuredValueSequence[0].NumericValue) for item in found] == list(result.probabilities.values())
    assert found[1].ConceptNameCodeSequence[0].CodeMeaning == "Probability of skin/naevus"
    assert len({item.ConceptNameCodeSequence[0].CodeValue for item in found}) == len(CLASSES)
    assert named(report, "Algorithm Name")[0].TextValue == "skin-dynammo-resnet18"
    assert named(report, "Algorithm Version")[0].TextValue == "task_3"
    assert [item.TextValue for item in named(report, "Algorithm Parameters")] == [
        f"weights_sha256 = {MODEL.weights_sha256}",
        f"classes_sha256 = {MODEL.classes_sha256}",
        "temperature = 1.5",
        "threshold = 0.4",
    ]
    (image,) = named(report, "Source of Measurement")
    assert image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == source.header.SOPInstanceUID
    assert len(named(report, "Measurement Group")) == 1
    assert (report.CompletionFlag, report.PreliminaryFlag, report.VerificationFlag) == (
        *("COMPLETE", "PRELIMINARY", "UNVERIFIED"),
    )


def test_an_indeterminate_result_names_no_class(tmp_path: Path, scans: Any) -> None:
    report = structured_report(MODEL.judge([0.3, 0.3, 0.2, 0.2]), source_of(tmp_path, scans))
    code = named(report, "Predicted class")[0].ConceptCodeSequence[0]
    assert (code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning) == ("82334004", "SCT", "Indeterminate")


@pytest.mark.parametrize("doubt", list(Doubt))
def test_an_indeterminate_result_says_why(tmp_path: Path, scans: Any, doubt: Doubt) -> None:
    result = replace(MODEL.judge(PROBABILITIES), doubt=doubt)
    report = structured_report(result, source_of(tmp_path, scans))
    assert named(report, "Predicted class")[0].ConceptCodeSequence[0].CodeMeaning == "Indeterminate"
    (reason,) = named(report, "Why the result is indeterminate")
    assert reason.ConceptCodeSequence[0].CodeMeaning == REASONS[doubt]
    sure = structured_report(MODEL.judge(PROBABILITIES), source_of(tmp_path, scans))
    assert named(sure, "Why the result is indeterminate") == []


def test_a_report_is_in_the_study_of_its_image_in_a_series_of_its_own(tmp_path: Path, scans: Any) -> None:
    source = source_of(tmp_path, scans)
    report = structured_report(MODEL.judge(PROBABILITIES), source)
    for name in ("StudyInstanceUID", "PatientName", "PatientID", "AccessionNumber", "StudyID", "PatientBirthDate"):
        assert report[name].value == source.header[name].value, name
    assert report.SeriesInstanceUID != source.header.SeriesInstanceUID
    assert (report.Modality, report.SeriesDescription, report.InstanceNumber) == ("SR", SERIES_DESCRIPTION, 12)


def test_the_same_picture_and_model_give_the_same_report(tmp_path: Path, scans: Any) -> None:
    source = source_of(tmp_path, scans, np.stack([PIXELS] * 3), "#1")
    first, again = (structured_report(MODEL.judge(PROBABILITIES), source) for _ in range(2))
    for report in (first, again):
        del report.ContentDate, report.ContentTime
    assert first == again
    other_weights = ModelIdentity(MODEL.name, MODEL.version, "cd" * 32, CLASSES)
    other_frame = source_of(tmp_path, scans, np.stack([PIXELS] * 3), "#2", **identifiers(source))
    other_window = source_of(tmp_path, scans, np.stack([PIXELS] * 3), "#1?window=1,2", **identifiers(source))
    others = [
        structured_report(other_weights.judge(PROBABILITIES), source),
        structured_report(MODEL.judge(PROBABILITIES), other_frame),
        structured_report(MODEL.judge(PROBABILITIES), other_window),
    ]
    assert len({report.SOPInstanceUID for report in (first, *others)}) == 4
    assert others[1].SeriesInstanceUID == first.SeriesInstanceUID != others[0].SeriesInstanceUID


def identifiers(source: SourceImage) -> dict[str, str]:
    names = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
    return {name: source.header[name].value for name in names}


@pytest.mark.parametrize(("picture", "frames"), [("#1", [2]), ("#middle", [2]), ("#mean", [1, 2, 3])])
def test_the_frames_that_were_looked_at_are_named(tmp_path: Path, scans: Any, picture: str, frames: list[int]) -> None:
    source = source_of(tmp_path, scans, np.stack([PIXELS] * 3), picture, SOPClassUID=ENHANCED_MR)
    image = named(structured_report(MODEL.judge(PROBABILITIES), source), "Source of Measurement")[0]
    found = image.ReferencedSOPSequence[0].ReferencedFrameNumber
    assert ([found] if isinstance(found, int) else list(found)) == frames


def test_frames_are_not_named_of_a_class_of_images_of_one_frame(tmp_path: Path, scans: Any) -> None:
    source = source_of(tmp_path, scans, np.stack([PIXELS] * 3), "#1")
    image = named(structured_report(MODEL.judge(PROBABILITIES), source), "Source of Measurement")[0]
    assert "ReferencedFrameNumber" not in image.ReferencedSOPSequence[0]


KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "type 2 left out": {name: None for name in ("PatientName", "PatientID", "AccessionNumber", "StudyDate", "StudyID")},
    "name without a comma": {"PatientName": "Jane Doe", "ReferringPhysicianName": "A^B^C^D^E"},
    "name in Cyrillic": {"SpecificCharacterSet": "ISO_IR 144", "PatientName": "Люкceмбypг"},
    "name in Japanese": {"SpecificCharacterSet": ["", "ISO 2022 IR 87"], "PatientName": "Yamada^Tarou=山田^太郎"},
    "odd values": {"PatientSex": "X", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.5"},
    "retired class of images": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.12.3"},
}


@pytest.mark.parametrize("attributes", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("probabilities", [PROBABILITIES, [0.3, 0.3, 0.2, 0.2]], ids=["sure", "indeterminate"])
def test_reports_are_valid(
    tmp_path: Path, scans: Any, is_valid_dicom: Any, attributes: dict[str, Any], probabilities: list[float]
) -> None:
    report = structured_report(MODEL.judge(probabilities), source_of(tmp_path, scans, **attributes))
    (tmp_path / "sr.dcm").write_bytes(dicom_bytes(report))
    assert is_valid_dicom(tmp_path / "sr.dcm")
    read = pydicom.dcmread(tmp_path / "sr.dcm")
    assert read.PatientName == (attributes.get("PatientName", "Doe^Jane") or "")


def test_reports_of_real_images_are_valid(test_data: Path, tmp_path: Path, is_valid_dicom: Any) -> None:
    valid = 0
    for path in sorted((test_data / "dicom").glob("*.dcm")):
        try:
            source = read_source_image(str(path))
            assert source is not None
            report = structured_report(MODEL.judge(PROBABILITIES), source)
        except ImageRefused:
            continue
        if "." in report.StudyDate:  # as ACR-NEMA wrote dates, and its image does
            assert report.StudyDate == pydicom.dcmread(path).StudyDate
            continue
        (tmp_path / "sr.dcm").write_bytes(dicom_bytes(report))
        assert is_valid_dicom(tmp_path / "sr.dcm"), path.name
        valid += 1
    assert valid > 60


def test_an_image_without_identifiers_gets_no_report(tmp_path: Path, scans: Any) -> None:
    source = source_of(tmp_path, scans, StudyInstanceUID=None)
    with pytest.raises(ImageRefused) as refusal:
        structured_report(MODEL.judge(PROBABILITIES), source)
    assert refusal.value.reason is Reason.MISSING_IDENTIFIERS


@pytest.mark.filterwarnings("ignore")
def test_identifiers_are_those_of_the_image_however_long(tmp_path: Path, scans: Any) -> None:
    odd = {
        **{"PatientID": "b" * 65, "PatientName": "Jane Doe " * 9 + "Doe", "PatientBirthDate": "1970.01.31"},
        **{"AccessionNumber": "HOSP2024010100012345", "StudyID": "1.2.840.40823.1.1.198"},
        **{"StudyDate": "2024.01.05", "StudyTime": "10:15:00", "IssuerOfPatientID": "c" * 70},
    }
    source = source_of(tmp_path, scans, **odd)
    (tmp_path / "sr.dcm").write_bytes(dicom_bytes(structured_report(MODEL.judge(PROBABILITIES), source)))
    image, report = pydicom.dcmread(tmp_path / "image"), pydicom.dcmread(tmp_path / "sr.dcm")
    for name, value in odd.items():
        assert report[name].value == image[name].value == value, name


@pytest.mark.filterwarnings("ignore")
def test_identifiers_that_cannot_be_read_are_named_and_no_report_is_written(tmp_path: Path, scans: Any) -> None:
    scans.dicom(tmp_path / "image", PIXELS, SpecificCharacterSet="ISO_IR 192", PatientID="Muller", StudyID="Str")
    content = (tmp_path / "image").read_bytes()
    (tmp_path / "image").write_bytes(content.replace(b"Muller", b"M\xfcller").replace(b"Str", b"\xfftr"))
    source = read_source_image(str(tmp_path / "image"))
    assert source is not None
    with pytest.raises(ImageRefused, match="repeats PatientID, StudyID of its image: .* character set") as refusal:
        structured_report(MODEL.judge(PROBABILITIES), source)
    assert refusal.value.reason is Reason.UNREADABLE_IDENTIFIERS


def test_our_own_report_is_never_an_image(tmp_path: Path, scans: Any) -> None:
    report = structured_report(MODEL.judge(PROBABILITIES), source_of(tmp_path, scans))
    (tmp_path / "sr.dcm").write_bytes(dicom_bytes(report))
    with pytest.raises(ImageRefused) as refusal:
        read_rgb(str(tmp_path / "sr.dcm"))
    assert refusal.value.reason is Reason.OWN_RESULT


def test_nobody_is_named_while_a_report_is_written(
    tmp_path: Path, scans: Any, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    odd = {
        "PatientName": "Secret Name",
        "PatientID": "S" * 70,
        "AccessionNumber": "Secret accession",
        "StudyID": "S" * 20,
    }
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            path = scans.dicom(tmp_path / "image", PIXELS, **odd)
        caplog.clear()
        source = read_source_image(path)
        assert source is not None
        dicom_bytes(structured_report(MODEL.judge(PROBABILITIES), source))
    printed = "".join([caplog.text, *capfd.readouterr(), *(str(warning.message) for warning in warned)])
    assert "Secret" not in printed and "SSSS" not in printed


def test_other_programs_read_a_report(tmp_path: Path, scans: Any) -> None:
    if shutil.which("dsrdump") is None:
        pytest.skip("dsrdump is not installed (Debian package dcmtk)")
    report = structured_report(MODEL.judge(PROBABILITIES), source_of(tmp_path, scans))
    (tmp_path / "sr.dcm").write_bytes(dicom_bytes(report))
    done = subprocess.run(["dsrdump", str(tmp_path / "sr.dcm")], capture_output=True, text=True)
    assert done.returncode == 0
    assert '"Probability of skin/naevus")' in done.stdout


@pytest.mark.parametrize(("scores", "said"), [((0.7, 0.1, 0.6), "effusion|mass"), ((0.1, 0.1, 0.1), "none")])
def test_a_report_names_every_finding_with_its_score(
    scores: tuple[float, ...], said: str, tmp_path: Path, scans: Any
) -> None:
    names = ("effusion", "nodule", "mass")
    model = ModelIdentity("chest-frozen-resnet18", "task_1", "ab" * 32, names, thresholds=(0.5, 0.5, 0.5))
    codes = make_class_codes({"mass": ("SCT", "4147007", "Mass")})
    report = structured_report(model.judge(scores), source_of(tmp_path, scans), class_codes=codes)
    (predicted,) = named(report, "Predicted class")
    assert predicted.ConceptCodeSequence[0].CodeMeaning == said
    for name, meaning, score in zip(names, ("effusion", "nodule", "Mass"), scores, strict=True):
        (judged,) = named(report, meaning)
        assert judged.ConceptCodeSequence[0].CodeMeaning == ("Present" if name in said else "Absent")
        (measured,) = named(report, f"Score of {name}")
        assert float(measured.MeasuredValueSequence[0].NumericValue) == score
    parameters = [item.TextValue for item in named(report, "Algorithm Parameters")]
    assert {"threshold of effusion = 0.5", "threshold of mass = 0.5"} <= {*parameters}
    (reported,) = read_reports([dicom_bytes(report)])
    assert reported.predicted.meaning == said
    assert [value for _, value in reported.probabilities] == list(scores)
