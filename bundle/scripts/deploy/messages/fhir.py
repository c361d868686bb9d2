"""A report as a FHIR R4B transaction: a DiagnosticReport, an Observation a class, and the Device that made them.

Each resource is put under its identifier (https://hl7.org/fhir/R4B/http.html#cond-update): what is sent twice is there
once.
"""

from __future__ import annotations

import uuid
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

from highdicom.sr import CodedConcept

from scripts.deploy.dicom.dicom_result import NOT_VERIFIED
from scripts.deploy.dicom.reported import ReportedResult
from scripts.deploy.dicom.structured_report import DOUBT, PREDICTED, SCHEME
from scripts.imaging.decoding.dicom import OWN_MANUFACTURER
from scripts.model.decisions.results import DIGITS
from scripts.utils.extras import of_extra

SYSTEMS = {
    "SCT": "http://snomed.info/sct",
    "DCM": "http://dicom.nema.org/resources/ontology/DCM",
    "UCUM": "http://unitsofmeasure.org",
    "LN": "http://loinc.org",
    "I10": "http://hl7.org/fhir/sid/icd-10",
    SCHEME: f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, SCHEME)}",
}
"""FHIR's names of DICOM's coding schemes (PS3.16 8)."""


def require_fhir() -> None:
    """Stop where the library is missing.

    Raises:
        UserError: says what to install.
    """
    with of_extra("fhir", "FHIR needs fhir.resources (key 'destination')"):
        import fhir.resources.R4B  # noqa: F401


def fhir_bundle(reported: ReportedResult) -> str:
    """Return a report as the JSON of a transaction, which the library has checked."""
    from fhir.resources.R4B.bundle import Bundle

    device, observations = _device(reported), _observations(reported)
    resources = [device, *observations, _report(reported, observations)]
    bundle = {"type": "transaction", "entry": [_entry(resource) for resource in resources]}
    return Bundle.model_validate(bundle).model_dump_json()


def _entry(resource: dict[str, Any]) -> dict[str, Any]:
    kind, (identifier,) = resource["resourceType"], resource["identifier"]
    query = urlencode({"identifier": f"{identifier['system']}|{identifier['value']}"})  # whose values hold a '#'
    url = f"{kind}?{query}"
    return {"fullUrl": _link(resource)["reference"], "resource": resource, "request": {"method": "PUT", "url": url}}


def _link(resource: dict[str, Any]) -> dict[str, Any]:
    """Refer to a resource of the same transaction."""
    name = f"{resource['resourceType']} {resource['identifier'][0]['value']}"
    return {"reference": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, name)}", "type": resource["resourceType"]}


def _device(reported: ReportedResult) -> dict[str, Any]:
    return {
        "resourceType": "Device",
        "identifier": [{"system": "urn:ietf:rfc:3986", "value": f"urn:oid:{reported.device}"}],
        "manufacturer": OWN_MANUFACTURER,
        "serialNumber": str(reported.header.DeviceSerialNumber),
        "deviceName": [{"name": reported.model, "type": "model-name"}],
        "version": [{"value": reported.version}],
    }


def _report(reported: ReportedResult, observations: list[dict[str, Any]]) -> dict[str, Any]:
    reasons = "" if reported.doubt is None else f" ({reported.doubt.meaning})"
    return {
        **_common(reported, "DiagnosticReport", ""),
        "category": [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0074", "code": "IMG"}]}],
        "code": _concept(reported.title),
        "imagingStudy": [_study(reported)],
        "result": [_link(observation) for observation in observations],
        "conclusion": f"{NOT_VERIFIED}: {reported.predicted.meaning}{reasons}",
        "conclusionCode": [_concept(reported.predicted)],
    }


def _observations(reported: ReportedResult) -> list[dict[str, Any]]:
    """Return what is said of each class, after what is said of all."""
    classes = [
        {
            **_observation(reported, name),
            "valueQuantity": {"value": Decimal(f"{value:.{DIGITS}f}"), "system": SYSTEMS["UCUM"], "code": "1"},
        }
        for name, value in reported.probabilities
    ]
    predicted = {
        **_observation(reported, PREDICTED),
        "valueCodeableConcept": _concept(reported.predicted),
        "hasMember": [_link(observation) for observation in classes],
    }
    if reported.doubt is not None:
        predicted["component"] = [{"code": _concept(DOUBT), "valueCodeableConcept": _concept(reported.doubt)}]
    return [predicted, *classes]


def _observation(reported: ReportedResult, name: CodedConcept) -> dict[str, Any]:
    return {
        **_common(reported, "Observation", f"#{name.value}"),
        "code": _concept(name),
        "derivedFrom": [_study(reported)],
        "device": _link(_device(reported)),
    }


def _common(reported: ReportedResult, kind: str, part: str) -> dict[str, Any]:
    """Return what report and observations share: whose they are, when, and that nobody has verified them."""
    uid = f"urn:oid:{reported.header.SOPInstanceUID}{part}"
    common = {
        "resourceType": kind,
        "identifier": [{"system": "urn:ietf:rfc:3986", "value": uid}],
        "status": "preliminary",
        "issued": reported.written.isoformat(timespec="milliseconds"),
    }
    return common if not reported.header.PatientID else {**common, "subject": _patient(reported)}


def _patient(reported: ReportedResult) -> dict[str, Any]:
    """Refer to the patient by the number that the image has: which resource that is, the server knows."""
    identifier: dict[str, Any] = {"value": str(reported.header.PatientID)}
    if issuer := reported.header.get("IssuerOfPatientID"):
        identifier["assigner"] = {"display": str(issuer)}
    return {"type": "Patient", "identifier": identifier}


def _study(reported: ReportedResult) -> dict[str, Any]:
    """Refer to the study by its UID (https://hl7.org/fhir/R4B/imagingstudy.html)."""
    uid = {"system": "urn:dicom:uid", "value": f"urn:oid:{reported.header.StudyInstanceUID}"}
    return {"type": "ImagingStudy", "identifier": uid}


def _concept(code: CodedConcept) -> dict[str, Any]:
    system = SYSTEMS.get(code.scheme_designator)
    coding = {"code": code.value, "display": code.meaning, **({} if system is None else {"system": system})}
    return {"coding": [coding], "text": code.meaning}
