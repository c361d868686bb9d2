"""A result as DICOM: a Comprehensive 3D SR in the study of the image it is of (TID 1500; IHE AI Results)."""

from __future__ import annotations

import hashlib
import io
import json
import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pydicom
from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    DeviceObserverIdentifyingAttributes,
    ImageContentItem,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    QualitativeEvaluation,
    RelationshipTypeValues,
    SourceImageForMeasurementGroup,
    TrackingIdentifier,
)
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import UID, Comprehensive3DSRStorage, ExplicitVRLittleEndian

from scripts.decoding.dicom import OWN_MANUFACTURER, PATIENT_AND_STUDY
from scripts.decoding.reasons import ImageRefused, Reason
from scripts.inference.results import ModelIdentity, Result
from scripts.transforms.scans import Source

SCHEME = "99DYNAMMO"
"""Our private coding scheme: classes have no codes of their own."""

SERIES_NUMBER = 990
SERIES_DESCRIPTION = "Classification (not for diagnosis)"
_IDENTIFIERS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
_EMPTY_AT_LEAST = (  # type 2: present, if empty
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyID", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName"),
)


def structured_report(result: Result, source: Source, illustrations: Sequence[Dataset] = ()) -> Dataset:
    """Write a result as a Comprehensive 3D SR, preliminary and unverified.

    The same result of the same picture gives the same SOP Instance UID, so that an archive keeps it once.

    Args:
        result: what the model says.
        source: the image it says it of.
        illustrations: images of the same study that the report shows beside it (saliency).

    Returns:
        The data set, with its file meta information.

    Raises:
        ImageRefused: when the source lacks the identifiers that say where the report belongs.
    """
    require_identifiers(source)
    model, now = result.model, datetime.now()
    report = Dataset()
    report.file_meta = FileMetaDataset()
    report.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    report.SOPClassUID = Comprehensive3DSRStorage
    report.SOPInstanceUID = result_uid("SR", model, source)
    report.SpecificCharacterSet = "ISO_IR 192"
    report.SeriesInstanceUID = derived_uid("series SR", model, str(source.header.SeriesInstanceUID))
    report.SeriesNumber, report.Modality = SERIES_NUMBER, "SR"
    report.SeriesDescription = SERIES_DESCRIPTION
    report.InstanceNumber = instance_number(source)
    report.ContentDate, report.ContentTime = f"{now:%Y%m%d}", f"{now:%H%M%S.%f}"
    report.CompletionFlag, report.PreliminaryFlag, report.VerificationFlag = "COMPLETE", "PRELIMINARY", "UNVERIFIED"
    report.CurrentRequestedProcedureEvidenceSequence = [_evidence([source.header, *illustrations])]
    report.PerformedProcedureCodeSequence = report.ReferencedPerformedProcedureStepSequence = []
    for name, value in device(model).items():
        setattr(report, name, value)
    put_into_study(report, source.header)
    report.update(_content(result, source, illustrations)[0])
    return report


def _evidence(images: Sequence[Dataset]) -> Dataset:
    """Return the reference to the images, all of one study, that stand in the report."""
    study = Dataset()
    study.StudyInstanceUID = images[0].StudyInstanceUID
    study.ReferencedSeriesSequence = []
    for image in images:
        series, instance = Dataset(), Dataset()
        instance.ReferencedSOPClassUID, instance.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
        series.SeriesInstanceUID, series.ReferencedSOPSequence = image.SeriesInstanceUID, [instance]
        study.ReferencedSeriesSequence.append(series)
    return study


def _content(result: Result, source: Source, illustrations: Sequence[Dataset]) -> MeasurementReport:
    model, header = result.model, source.header
    observer = DeviceObserverIdentifyingAttributes(
        uid=derived_uid("device", model),
        name=_short(model.name),
        manufacturer_name=OWN_MANUFACTURER,
        model_name=_short(model.name),
        serial_number=model.weights_sha256,
    )
    said = codes.SCT.Indeterminate if result.indeterminate else class_code(result.predicted_class)
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            uid=result_uid("tracking", model, source), identifier="Classification of the image"
        ),
        algorithm_id=AlgorithmIdentification(model.name, model.version, parameters=_parameters(model)),
        qualitative_evaluations=[QualitativeEvaluation(_code("predicted class", "Predicted class"), said)],
        measurements=[
            Measurement(probability_code(name), value, codes.UCUM.NoUnits)
            for name, value in result.probabilities.items()
        ],
        source_images=[
            SourceImageForMeasurementGroup(header.SOPClassUID, header.SOPInstanceUID, list(source.frames) or None)
        ],
    )
    shown = _code("saliency", "Saliency map")
    group[0].ContentSequence.extend(
        ImageContentItem(shown, picture.SOPClassUID, picture.SOPInstanceUID, None, None, _CONTAINS)
        for picture in illustrations
    )
    return MeasurementReport(
        observation_context=ObservationContext(observer_device_context=ObserverContext(codes.DCM.Device, observer)),
        procedure_reported=codes.SCT.ImagingProcedure,
        imaging_measurements=[group],
    )


_CONTAINS = RelationshipTypeValues.CONTAINS


def _parameters(model: ModelIdentity) -> list[str]:
    """Say all that decides a result beside the image, one parameter a text."""
    values = {**model.record(), "temperature": model.temperature or 1.0}
    names = ("weights_sha256", "classes_sha256", "temperature", "threshold")
    return [f"{name} = {values[name]}" for name in names if values[name] is not None]


def class_code(name: str) -> CodedConcept:
    """Return the code of a class in our scheme: the same name has the same code, in any model."""
    return _code(f"class {name}", name)


def probability_code(name: str) -> CodedConcept:
    """Return the code of a class's probability in our scheme."""
    return _code(f"probability {name}", f"Probability of {name}")


def _code(meant: str, meaning: str) -> CodedConcept:
    return CodedConcept(hashlib.sha256(meant.encode()).hexdigest()[:16], SCHEME, _short(meaning))


def _short(text: str) -> str:
    """Fit a text into a value of 64 characters."""
    plain = "".join(" " if character == "\\" or not character.isprintable() else character for character in text)
    return plain if len(plain) <= 64 else f"{plain[:61]}..."


def require_identifiers(source: Source) -> None:
    """Stop where an image does not say which study it is of.

    Raises:
        ImageRefused: names no patient.
    """
    if not all(source.header.get(name) for name in _IDENTIFIERS):
        raise ImageRefused(
            "a report needs the study, series and SOP instance UID of its image, and one is missing: "
            "read the result in the JSON file",
            Reason.MISSING_IDENTIFIERS,
        )


def derived_uid(kind: str, model: ModelIdentity, *parts: str) -> UID:
    """Return a UID that its parts decide (``2.25.`` and a UUID: PS3.5 B.2)."""
    name = json.dumps([kind, model.record(), *parts])
    return UID(f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, name).int}")


def result_uid(kind: str, model: ModelIdentity, source: Source) -> UID:
    """Return the UID of what a model says of a picture."""
    return derived_uid(kind, model, str(source.header.SOPInstanceUID), source.shown)


def instance_number(source: Source) -> int:
    """Return the image's own number in its series, so that results are ordered as their images are."""
    return max(1, int(source.header.get("InstanceNumber") or 1))


def device(model: ModelIdentity) -> dict[str, Any]:
    """Return the equipment that every result names, by keyword: the model, by its weights."""
    return {
        "Manufacturer": OWN_MANUFACTURER,
        "ManufacturerModelName": _short(model.name),
        "DeviceSerialNumber": model.weights_sha256,
        "SoftwareVersions": model.version,
    }


def put_into_study(result: Dataset, header: Dataset) -> None:
    """Give a result the patient and the study of its image; what the image leaves out is there, empty."""
    for name in _EMPTY_AT_LEAST:
        setattr(result, name, "")
    for name in PATIENT_AND_STUDY:
        if name in header:
            result[name] = header[name]
    if result.PatientSex not in ("M", "F", "O"):
        result.PatientSex = ""


def dicom_bytes(dataset: Dataset) -> bytes:
    """Return a data set as a DICOM file holds it."""
    file = io.BytesIO()
    pydicom.dcmwrite(file, dataset, enforce_file_format=True)
    return file.getvalue()
