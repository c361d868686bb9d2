"""A result in DICOM, in FHIR and in HL7 v2 is the same result, as other libraries read each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pydicom
import pytest
from fhir.resources.R4B.bundle import Bundle
from hl7apy.parser import parse_message
from pydicom.dataset import Dataset

from scripts.deploy.dicom.dicom_result import NOT_VERIFIED, dicom_bytes, short
from scripts.deploy.dicom.reported import ReportedResult, read_reports
from scripts.deploy.dicom.structured_report import REASONS, make_class_codes, structured_report
from scripts.deploy.messages.fhir import SYSTEMS, fhir_bundle
from scripts.deploy.messages.hl7 import control_id, oru_message
from scripts.imaging.transforms.scans import read_source_image
from scripts.model.decisions.results import ModelIdentity, Result
from scripts.utils.errors import UserError

CLASSES = ("benign", "skin|naevus^flat&dark~", "a name of " + "many " * 20 + "words", "Größe Ж")
MODEL = ModelIdentity("skin-dynammo-resnet18", "task_3", "ab" * 32, CLASSES, temperature=1.5)
CLEAR, UNCLEAR = MODEL.judge([0.1, 0.6, 0.1, 0.2]), replace(MODEL, threshold=0.9).judge([0.1, 0.6, 0.1, 0.2])
WHO = {"PatientName": "Mül|ler^Jane^Ann^Dr^MD", "PatientID": "47|11", "IssuerOfPatientID": "CLINIC"}
STUDY = {"StudyDate": "20261121", "PatientBirthDate": "19700101", "PatientSex": "F", "AccessionNumber": "A&15"}


@dataclass
class Said:
    """What a message says, in words that all have."""

    predicted: str
    doubt: str | None
    probabilities: dict[str, Decimal]
    study: str
    report: str
    patient: str
    model: str


def expected(result: Result, source: Dataset, report: Dataset) -> Said:
    return Said(
        "Indeterminate" if result.indeterminate else short(result.predicted_class),
        None if result.doubt is None else REASONS[result.doubt],
        {short(f"Probability of {name}"): Decimal(str(value)) for name, value in result.probabilities.items()},
        str(source.StudyInstanceUID),
        str(report.SOPInstanceUID),
        WHO["PatientID"],
        result.model.name,
    )


def items(dataset: Dataset) -> Iterator[Dataset]:
    for item in dataset.get("ContentSequence", []):
        yield item
        yield from items(item)


def of_dicom(report: Dataset) -> Said:
    found: dict[str, Dataset] = {
        item.ConceptNameCodeSequence[0].CodeMeaning: item for item in items(report) if "ConceptNameCodeSequence" in item
    }
    doubt = found.get("Why the result is indeterminate")
    numbers = {name: item for name, item in found.items() if item.ValueType == "NUM"}
    return Said(
        found["Predicted class"].ConceptCodeSequence[0].CodeMeaning,
        None if doubt is None else doubt.ConceptCodeSequence[0].CodeMeaning,
        {name: Decimal(str(item.MeasuredValueSequence[0].NumericValue)) for name, item in numbers.items()},
        str(report.StudyInstanceUID),
        str(report.SOPInstanceUID),
        report.PatientID,
        found["Algorithm Name"].TextValue,
    )


def of_fhir(content: str) -> Said:
    bundle = Bundle.model_validate_json(content)
    resources: dict[str, list[Any]] = {}
    for entry in bundle.entry:
        resources.setdefault(entry.resource.get_resource_type(), []).append(entry.resource)
    (report,), (device,) = resources["DiagnosticReport"], resources["Device"]
    predicted, *classes = resources["Observation"]
    assert {item.status for item in [report, predicted, *classes]} == {"preliminary"}
    names = {entry.fullUrl for entry in bundle.entry}
    links = [*report.result, *predicted.hasMember, *(item.device for item in [predicted, *classes])]
    assert len(names) == len(bundle.entry) and {link.reference for link in links} < names
    assert report.conclusion.startswith(NOT_VERIFIED)
    return Said(
        predicted.valueCodeableConcept.text,
        None if predicted.component is None else predicted.component[0].valueCodeableConcept.text,
        {item.code.text: item.valueQuantity.value for item in classes},
        report.imagingStudy[0].identifier.value.removeprefix("urn:oid:"),
        report.identifier[0].value.removeprefix("urn:oid:"),
        report.subject.identifier.value,
        device.deviceName[0].name,
    )


def plain(text: str) -> str:
    for mark, letter in {"F": "|", "S": "^", "T": "&", "R": "~", "E": "\\"}.items():
        text = text.replace(f"\\{mark}\\", letter)
    return text


def of_hl7(content: str) -> Said:
    message = parse_message(content)
    assert message.validate()
    patient, order = message.ORU_R01_PATIENT_RESULT.ORU_R01_PATIENT, message.ORU_R01_PATIENT_RESULT
    order = order.ORU_R01_ORDER_OBSERVATION
    observations = [group.obx for group in order.ORU_R01_OBSERVATION]
    assert {item.obx_11.value for item in observations} | {order.obr.obr_25.value} == {"P"}
    assert order.nte.nte_3.value == NOT_VERIFIED
    names = [plain(item.obx_3.value.split("^")[1]) for item in observations]
    values = {name: item.obx_5.value for name, item in zip(names, observations, strict=True)}
    coded = {name: plain(value.split("^")[1]) for name, value in values.items() if "^" in value}
    return Said(
        coded["Predicted class"],
        coded.get("Why the result is indeterminate"),
        {name: Decimal(value) for name, value in values.items() if name.startswith("Probability of ")},
        values["Study Instance UID"],
        order.obr.obr_3.value,
        plain(patient.pid.pid_3.value.split("^")[0]),
        observations[0].obx_18.value.split("^")[0],
    )


def reported(result: Result, scans: Any, tmp_path: Path, **attributes: Any) -> tuple[Dataset, Dataset, ReportedResult]:
    pixels = np.zeros((30, 40), np.uint16)
    source = read_source_image(scans.dicom(tmp_path / "image", pixels, **{**WHO, **STUDY, **attributes}))
    assert source is not None
    content = dicom_bytes(structured_report(result, source))
    (found,) = read_reports([content])
    return source.header, pydicom.dcmread(BytesIO(content)), found


@pytest.mark.parametrize("result", [CLEAR, UNCLEAR])
def test_the_same_result_is_in_all(result: Result, scans: Any, tmp_path: Path) -> None:
    source, report, found = reported(result, scans, tmp_path)
    stated = expected(result, source, report)
    assert of_dicom(report) == stated
    assert of_fhir(fhir_bundle(found)) == stated
    assert of_hl7(oru_message(found, "NODE", "RIS", "HOSPITAL")) == stated


def test_a_class_has_its_public_code_in_all(scans: Any, tmp_path: Path) -> None:
    source = read_source_image(scans.dicom(tmp_path / "image", np.zeros((30, 40), np.uint16), **WHO, **STUDY))
    assert source is not None
    table = make_class_codes({CLASSES[1]: ("SCT", "21119008", "Naevus"), CLASSES[0]: ("I10", "D22", "Naevi")})
    coded, other = (structured_report(result, source, (), table) for result in (CLEAR, UNCLEAR))
    (found,) = read_reports([dicom_bytes(coded)])
    assert (found.predicted.scheme_designator, found.predicted.value) == ("SCT", "21119008")
    bundle = Bundle.model_validate_json(fhir_bundle(found))
    (coding,) = bundle.entry[1].resource.valueCodeableConcept.coding
    assert (coding.system, coding.code) == ("http://snomed.info/sct", "21119008")
    assert "|21119008^Naevus^SCT|" in oru_message(found, "NODE", "RIS", "H")
    assert coded.SOPInstanceUID != structured_report(CLEAR, source).SOPInstanceUID  # another code, another report
    assert other.SOPInstanceUID == structured_report(UNCLEAR, source).SOPInstanceUID


@pytest.mark.parametrize(
    "entry", ["SCT", ["SCT", "1"], ["SCT", "1", ""], ["SCT", "1", 2], ["SCT", "1", "x" * 65], 1, None]
)
def test_a_code_that_is_none_is_named(entry: Any) -> None:
    with pytest.raises(UserError, match="the code of class a is .*: give scheme, code and meaning"):
        make_class_codes({"a": entry})


def test_what_is_said_twice_has_the_same_names(scans: Any, tmp_path: Path) -> None:
    _, report, found = reported(CLEAR, scans, tmp_path)
    (again,) = read_reports([dicom_bytes(report)])
    assert fhir_bundle(again) == fhir_bundle(found)
    assert control_id(again) == control_id(found)
    entries = json.loads(fhir_bundle(found))["entry"]
    assert {entry["request"]["method"] for entry in entries} == {"PUT"}
    queries = [
        parse_qs(urlsplit(entry["request"]["url"]).query)["identifier"] for entry in entries
    ]  # as a server reads
    named = [entry["resource"]["identifier"][0] for entry in entries]
    assert queries == [[f"{name['system']}|{name['value']}"] for name in named]
    assert len({query for (query,) in queries}) == len(entries) == 2 + 1 + len(CLASSES)


def test_codes_have_fhirs_names(scans: Any, tmp_path: Path) -> None:
    content = fhir_bundle(reported(UNCLEAR, scans, tmp_path)[2])
    assert {f'"{SYSTEMS[scheme]}"' in content for scheme in ("SCT", "DCM", "UCUM", "99DYNAMMO")} == {True}


def test_a_name_comes_in_hl7s_order(scans: Any, tmp_path: Path) -> None:
    message = parse_message(oru_message(reported(CLEAR, scans, tmp_path)[2], "A|B", "RIS", "H"))
    person = message.ORU_R01_PATIENT_RESULT.ORU_R01_PATIENT.pid
    assert plain(person.pid_5.value) == "Mül|ler^Jane^Ann^MD^Dr"
    assert (person.pid_7.value, person.pid_8.value) == ("19700101", "F")
    assert plain(message.msh.msh_3.value) == "A|B"


def test_without_a_patient_fhir_names_none(scans: Any, tmp_path: Path) -> None:
    found = reported(CLEAR, scans, tmp_path, PatientID="", PatientName="")[2]
    bundle = json.loads(fhir_bundle(found))
    assert not any("subject" in entry["resource"] for entry in bundle["entry"])
