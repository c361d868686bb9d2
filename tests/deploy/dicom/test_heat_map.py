"""A saliency map as a DICOM segmentation: valid, on its image, and what went in, as another program reads it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image

from scripts.deploy.dicom.dicom_result import NOT_VERIFIED, dicom_bytes
from scripts.deploy.dicom.heat_map import heat_segmentation
from scripts.deploy.dicom.structured_report import structured_report
from scripts.imaging.decoding.reasons import ImageRefused
from scripts.imaging.transforms.scans import read_source_image
from scripts.model.decisions.results import ModelIdentity

MODEL = ModelIdentity("skin-dynammo-resnet18", "task_3", "ab" * 32, ("benign", "skin/naevus"))
RESULT = MODEL.judge([0.3, 0.7])
HEAT = np.linspace(0, 1, 30 * 40, dtype=np.float32).reshape(30, 40)
CR, CT, PHOTO, FRAMES, ENHANCED_MR = (f"1.2.840.10008.5.1.4.1.1.{last}" for last in ("1", "2", "77.1.4", "7.2", "4.1"))
GREY = np.zeros((30, 40), np.uint16)
KINDS: dict[str, tuple[np.ndarray, dict[str, Any], str]] = {
    "CR": (GREY, {"SOPClassUID": CR}, ""),
    "CT": (GREY, {"SOPClassUID": CT, "FrameOfReferenceUID": "1.2.3", "Modality": "CT"}, ""),
    "photograph": (
        np.zeros((30, 40, 3), np.uint8),
        {"SOPClassUID": PHOTO, "PhotometricInterpretation": "RGB"},
        "",
    ),
    "frames": (np.zeros((5, 30, 40), np.uint8), {"SOPClassUID": FRAMES, "BurnedInAnnotation": "NO"}, "#2"),
    "enhanced MR": (np.zeros((5, 30, 40), np.uint16), {"SOPClassUID": ENHANCED_MR, "Modality": "MR"}, "#3"),
}


def made(kind: str, scans: Any, folder: Path, heat: np.ndarray = HEAT) -> tuple[pydicom.Dataset, pydicom.Dataset]:
    pixels, attributes, picture = KINDS[kind]
    source = read_source_image(scans.dicom(folder / "image", pixels, **attributes) + picture)
    assert source is not None
    return source.header, heat_segmentation(heat, RESULT, source)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_valid_and_on_its_image(
    kind: str, scans: Any, tmp_path: Path, is_valid_dicom: Callable[[Path], bool]
) -> None:
    header, segmentation = made(kind, scans, tmp_path)
    (tmp_path / "seg.dcm").write_bytes(dicom_bytes(segmentation))
    assert is_valid_dicom(tmp_path / "seg.dcm")
    read = pydicom.dcmread(tmp_path / "seg.dcm")
    assert (read.SegmentationType, read.SegmentationFractionalType) == ("FRACTIONAL", "PROBABILITY")
    (frame,) = read.PerFrameFunctionalGroupsSequence
    reference = frame.DerivationImageSequence[0].SourceImageSequence[0]
    (series,) = read.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == header.SeriesInstanceUID
    for found in (reference, *series.ReferencedInstanceSequence):
        assert found.ReferencedSOPInstanceUID == header.SOPInstanceUID
        assert found.ReferencedSOPClassUID == header.SOPClassUID
    named = {"frames": 3, "enhanced MR": 4}
    assert reference.get("ReferencedFrameNumber") == named.get(kind)
    assert read.StudyInstanceUID == header.StudyInstanceUID and read.SeriesInstanceUID != header.SeriesInstanceUID
    assert read.ContentDescription.startswith(NOT_VERIFIED)
    assert np.abs(read.pixel_array / 255 - HEAT).max() <= 0.5 / 255 + 1e-6


def test_the_same_result_gives_the_same_uids_and_the_report_shows_it(
    scans: Any, tmp_path: Path, is_valid_dicom: Callable[[Path], bool]
) -> None:
    source = read_source_image(scans.dicom(tmp_path / "image", GREY, SOPClassUID=CR))
    assert source is not None
    first, second = (heat_segmentation(HEAT, RESULT, source) for _ in range(2))
    assert first.SOPInstanceUID == second.SOPInstanceUID
    report = structured_report(RESULT, source, [first])
    (tmp_path / "sr.dcm").write_bytes(dicom_bytes(report))
    assert is_valid_dicom(tmp_path / "sr.dcm")
    assert str(first.SOPInstanceUID) in str(report.ContentSequence)


def test_an_empty_map_is_a_frame_of_zeros(scans: Any, tmp_path: Path) -> None:
    assert not made("CR", scans, tmp_path, np.zeros((30, 40), np.float32))[1].pixel_array.any()


def test_another_program_reads_the_map(scans: Any, tmp_path: Path) -> None:
    paths = [path for path in os.get_exec_path() if Path(path) != Path(sys.executable).parent]
    program = shutil.which("dcmj2pnm", path=os.pathsep.join(paths))
    if program is None:
        pytest.skip("dcmj2pnm is not installed (Debian package dcmtk)")
    (tmp_path / "seg.dcm").write_bytes(dicom_bytes(made("CR", scans, tmp_path)[1]))
    subprocess.run([program, "--write-raw-pnm", tmp_path / "seg.dcm", tmp_path / "seg.pgm"], check=True)
    read = np.asarray(Image.open(tmp_path / "seg.pgm").convert("L"), float)
    assert np.abs(read / 255 - HEAT).max() <= 1 / 255


def test_segmentations_of_real_images_are_valid(test_data: Path, tmp_path: Path, is_valid_dicom: Any) -> None:
    valid = 0
    for path in sorted((test_data / "dicom").glob("*.dcm")):
        try:
            source = read_source_image(str(path))
            assert source is not None
            segmentation = heat_segmentation(HEAT, RESULT, source)
        except ImageRefused:
            continue
        if "." in segmentation.StudyDate:  # as ACR-NEMA wrote dates, and its image does
            continue
        (tmp_path / "seg.dcm").write_bytes(dicom_bytes(segmentation))
        assert is_valid_dicom(tmp_path / "seg.dcm"), path.name
        valid += 1
    assert valid > 60
