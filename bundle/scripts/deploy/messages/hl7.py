"""A report as an HL7 v2.5.1 message, ORU^R01 (unsolicited observations; chapter 7): preliminary, a class an OBX."""

from __future__ import annotations

import hashlib

from highdicom.sr import CodedConcept
from pydicom.sr.codedict import codes
from pydicom.valuerep import PersonName

from scripts.deploy.dicom.dicom_result import NOT_VERIFIED
from scripts.deploy.dicom.reported import ReportedResult
from scripts.deploy.dicom.structured_report import DOUBT, PREDICTED
from scripts.model.decisions.results import DIGITS
from scripts.utils.extras import of_extra

VERSION = "2.5.1"
_ESCAPES = {letter: f"\\{name}\\" for letter, name in zip("\\|^&~", "EFSTR", strict=True)}


def require_hl7() -> None:
    """Stop where the library is missing.

    Raises:
        UserError: says what to install.
    """
    with of_extra("hl7", "HL7 v2 needs hl7apy (key 'destination')"):
        import hl7apy  # noqa: F401


def oru_message(reported: ReportedResult, sender: str, receiver: str, facility: str) -> str:
    """Return a report as a message, segments ended by CR, which the library has checked.

    Args:
        reported: what the report says, of a patient that has a number.
        sender: MSH-3, this node.
        receiver: MSH-5, the application that it is for.
        facility: MSH-6, where that is.

    Raises:
        HL7apyException: the standard's rules do not allow what it would say.
    """
    from hl7apy.core import Message

    header, time = reported.header, f"{reported.written:%Y%m%d%H%M%S%z}"
    message = Message("ORU_R01", version=VERSION)
    head = {3: _text(sender), 5: _text(receiver), 6: _text(facility), 7: time, 9: "ORU^R01^ORU_R01"}
    head |= {10: control_id(reported), 11: "P", 12: VERSION, 18: "UNICODE UTF-8"}
    _fill(message.msh, head)
    results = message.add_group("ORU_R01_PATIENT_RESULT")
    issuer = header.get("IssuerOfPatientID") or ""
    patient = {3: _field(header.PatientID, "", "", issuer), 5: _name(header.PatientName)}
    patient |= {7: _text(header.PatientBirthDate), 8: _text(header.PatientSex or "U")}
    _fill(results.add_group("ORU_R01_PATIENT").add_segment("PID"), patient)
    order = results.add_group("ORU_R01_ORDER_OBSERVATION")
    request = {1: "1", 3: str(header.SOPInstanceUID), 4: _code(reported.title), 18: _text(header.AccessionNumber)}
    _fill(order.add_segment("OBR"), {**request, 7: _text(header.StudyDate), 22: time, 25: "P"})
    _fill(order.add_segment("NTE"), {1: "1", 3: NOT_VERIFIED})
    machine = _field(reported.model, "", reported.device, "ISO")
    for number, (name, kind, value, units) in enumerate(_said(reported), 1):
        segment = order.add_group("ORU_R01_OBSERVATION").add_segment("OBX")
        said = {1: str(number), 2: kind, 3: _code(name), 5: value, 6: units, 11: "P", 14: time, 18: machine}
        _fill(segment, said)
    message.validate()
    return str(message.to_er7())


def control_id(reported: ReportedResult) -> str:
    """Return what tells the message from others (MSH-10): the same report has the same, however often it is sent."""
    return hashlib.sha256(reported.header.SOPInstanceUID.encode()).hexdigest()[:20]


def _said(reported: ReportedResult) -> list[tuple[CodedConcept, str, str, str]]:
    """Return name, kind of value, value and units of each observation."""
    said = [(PREDICTED, "CWE", _code(reported.predicted), "")]
    if reported.doubt is not None:
        said.append((DOUBT, "CWE", _code(reported.doubt), ""))
    units = _code(CodedConcept(*codes.UCUM.NoUnits[:3]))
    said += [(name, "NM", f"{value:.{DIGITS}f}", units) for name, value in reported.probabilities]
    study = CodedConcept(*codes.DCM.StudyInstanceUID[:3])
    return [*said, (study, "ST", str(reported.header.StudyInstanceUID), "")]


def _fill(segment: object, values: dict[int, str]) -> None:
    name = str(segment.name).lower()  # type: ignore[attr-defined]
    for number, value in values.items():
        if value:
            setattr(segment, f"{name}_{number}", value)


def _code(code: CodedConcept) -> str:
    return _field(code.value, code.meaning, code.scheme_designator)


def _name(name: PersonName) -> str:
    """Return a DICOM name as an XPN; of who has none, that the kind of name is not known."""
    parts = (name.family_name, name.given_name, name.middle_name, name.name_suffix, name.name_prefix)
    return _field(*parts) if any(parts) else "^^^^^^U"


def _field(*components: object) -> str:
    return "^".join(_text(component) for component in components).rstrip("^")


def _text(value: object) -> str:
    """Escape what separates parts of a message (chapter 2.7); what cannot be printed is a space."""
    plain = "".join(letter if letter.isprintable() else " " for letter in str(value))
    return "".join(_ESCAPES.get(letter, letter) for letter in plain)
