"""Copies of DICOM files: no byte of a name, the same study stays one, valid, and the pixels as they were."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from scripts.deploy.dicom.deidentified import Deidentifier, is_free_of_text
from scripts.utils.errors import UserError

pytest.importorskip("dicognito", reason="no dicognito: install the extra [deidentify]")

CR = "1.2.840.10008.5.1.4.1.1.1"
PIXELS = np.arange(1760, dtype=np.uint16).reshape(44, 40)
SECRETS = {
    "PatientName": "Secretname^Ada",
    "PatientID": "PATIENT-4711",
    "PatientBirthDate": "19480229",
    "AccessionNumber": "ACCESSION-0815",
    "StudyDate": "20251203",
    "StudyTime": "101501",
    "StudyInstanceUID": "1.2.826.99.1",
    "SeriesInstanceUID": "1.2.826.99.2",
    "SOPInstanceUID": "1.2.826.99.3",
    "FrameOfReferenceUID": "1.2.826.99.4",
    "ReferringPhysicianName": "Doctorname^Bo",
    "InstitutionName": "Hospitalname",
    "StationName": "STATION-99",
    "StudyDescription": "Knee of Secretname",
    "ImageComments": "as told by Secretname",
    "OtherPatientIDs": ["OTHER-12345"],
}
WORDS = [
    *(
        "Secretname",
        "PATIENT-4711",
        "19480229",
        "ACCESSION-0815",
        "20251203",
        "1.2.826.99",
        "Doctorname",
        "Hospitalname",
    ),
    *("STATION-99", "OTHER-12345", "HIDDEN", "GATEWAY"),
]


def secret_file(path: Path, scans: Any, syntax: str = "1.2.840.10008.1.2.1", **attributes: Any) -> Path:
    """Write an image that names its patient at every place that such names are found at."""
    dataset = scans.make_dicom(PIXELS, syntax, **{**SECRETS, "SOPClassUID": CR, "Modality": "CR", **attributes})
    dataset.private_block(0x0011, "HIDDEN MAKER", create=True).add_new(1, "LO", "HIDDEN Secretname")
    before = Dataset()
    before.PatientID, before.PatientName, before.StudyDescription = "PATIENT-4711", "Secretname^Ada", "Secretname"
    dataset.RequestAttributesSequence = [before]
    dataset.add_new(0x60000022, "LO", "HIDDEN overlay")
    dataset.add_new(0x60003000, "OW", b"HIDDEN")
    dataset.add_new(0xFFFCFFFC, "OB", b"HIDDEN")
    dataset.file_meta.SourceApplicationEntityTitle = "GATEWAY"
    dataset.preamble = b"HIDDEN".ljust(128, b"\0")
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    return path


def written(content: bytes, path: Path) -> Dataset:
    path.write_bytes(content)
    return pydicom.dcmread(path)


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.90"])
def test_no_byte_names_anybody_and_the_image_is_the_same(syntax: str, tmp_path: Path, scans: Any) -> None:
    source = secret_file(tmp_path / "source", scans, syntax)
    assert [word for word in WORDS if word.encode() not in source.read_bytes()] == []
    copy = Deidentifier().copy(source)
    assert [word for word in WORDS if word.encode() in copy] == []
    read = written(copy, tmp_path / "copy.dcm")
    assert np.array_equal(read.pixel_array, PIXELS)
    assert read.file_meta.TransferSyntaxUID == syntax
    assert read.file_meta.MediaStorageSOPInstanceUID == read.SOPInstanceUID
    assert (read.DeidentificationMethod, read.LongitudinalTemporalInformationModified) == ("DICOGNITO", "MODIFIED")


def test_a_patient_and_a_study_stay_one_within_an_export_alone(tmp_path: Path, scans: Any) -> None:
    deidentifier = Deidentifier()
    files = [secret_file(tmp_path / str(number), scans, SOPInstanceUID=f"1.2.826.99.{number}") for number in (5, 6)]
    other = secret_file(tmp_path / "other", scans, StudyInstanceUID="1.2.826.99.7", PatientID="PATIENT-4711-2")
    first, second, third = (written(deidentifier.copy(file), tmp_path / "copy") for file in (*files, other))
    again = written(Deidentifier().copy(files[0]), tmp_path / "copy")
    for name in ("PatientID", "PatientName", "StudyInstanceUID", "SeriesInstanceUID", "StudyDate", "AccessionNumber"):
        assert first[name].value == second[name].value, name
    for name in ("PatientID", "StudyInstanceUID", "SOPInstanceUID"):
        assert first[name].value != third[name].value, name
        assert first[name].value != again[name].value, name
    assert first.SOPInstanceUID != second.SOPInstanceUID


def test_a_copy_is_as_valid_as_its_file(tmp_path: Path, scans: Any, is_valid_dicom: Callable[[Path], bool]) -> None:
    needed = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7", "ConversionType": "WSD", "Modality": "OT"}
    source = secret_file(
        tmp_path / "source",
        scans,
        **needed,
        **{"StudyID": "7", "SeriesNumber": 1, "InstanceNumber": 12, "PatientSex": "F", "Manufacturer": "Maker"},
        **{"Laterality": "", "PatientOrientation": "", "FrameOfReferenceUID": None},
    )
    dataset = pydicom.dcmread(source)
    del dataset[0x60000022], dataset[0x60003000], dataset.RequestAttributesSequence  # which are no whole modules
    dataset.save_as(source, enforce_file_format=True)
    assert is_valid_dicom(source)
    (tmp_path / "copy.dcm").write_bytes(Deidentifier().copy(source))
    assert is_valid_dicom(tmp_path / "copy.dcm")


@pytest.mark.parametrize(("said", "free"), [("NO", True), ("YES", False), (None, False)])
def test_only_no_says_that_nothing_is_burned_in(said: str | None, free: bool, tmp_path: Path, scans: Any) -> None:
    assert is_free_of_text(secret_file(tmp_path / "file", scans, BurnedInAnnotation=said)) is free


def test_without_dicognito_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dicognito.anonymizer", None)
    with pytest.raises(UserError, match=r"pip install 'dynammo-bundle\[deidentify\]'"):
        Deidentifier()


def test_another_program_reads_a_copy(tmp_path: Path, scans: Any) -> None:
    if shutil.which("dcmdump") is None:
        pytest.skip("dcmdump is not installed (Debian package dcmtk)")
    (tmp_path / "copy.dcm").write_bytes(Deidentifier().copy(secret_file(tmp_path / "source", scans)))
    done = subprocess.run(["dcmdump", tmp_path / "copy.dcm"], capture_output=True, text=True, check=True)
    assert "DICOGNITO" in done.stdout and "Secretname" not in done.stdout
