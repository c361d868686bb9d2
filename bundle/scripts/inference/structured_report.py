"""A result as DICOM: a Comprehensive 3D SR in the study of the image it is of (TID 1500; IHE AI Results)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

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
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    MRImageStorage,
    SecondaryCaptureImageStorage,
    UltrasoundImageStorage,
)

from scripts.decoding.dicom import OWN_MANUFACTURER
from scripts.edge.results import Doubt, ModelIdentity, Result
from scripts.inference.dicom_result import derived_uid, dicom_result, reference_to, result_uid, short
from scripts.transforms.scans import Source

SCHEME = "99DYNAMMO"
"""Our private coding scheme: classes have no codes of their own."""

REASONS = {
    Doubt.OUTLIER: "The image is unlike those that the model learnt from",
    Doubt.IMPROBABLE: "No class is probable enough",
}
"""What a report says of a result that is indeterminate."""

_ONE_FRAME = (  # classes of images whose frames must not be named, although such files may hold several
    *(ComputedRadiographyImageStorage, CTImageStorage, MRImageStorage, UltrasoundImageStorage),
    *(SecondaryCaptureImageStorage, DigitalXRayImageStorageForPresentation, DigitalXRayImageStorageForProcessing),
)


def structured_report(result: Result, source: Source, illustrations: Sequence[Dataset] = ()) -> Dataset:
    """Write a result as a Comprehensive 3D SR: complete, preliminary, unverified.

    The content is highdicom's; the document around it is not, since highdicom logs names that it finds odd, copies by
    tables of the SOP classes it knows, and takes twice the time.

    Args:
        result: what the model says.
        source: the image it says it of.
        illustrations: images of the same study that the report shows beside it (saliency).

    Returns:
        The data set, with file meta information; the same model, picture and illustrations give the same SOP
        Instance UID.

    Raises:
        ImageRefused: when the source lacks the identifiers that say where the report belongs.
    """
    shown = [str(image.SOPInstanceUID) for image in illustrations]
    report = dicom_result(Comprehensive3DSRStorage, "SR", result.model, source, *shown)
    report.CompletionFlag, report.PreliminaryFlag, report.VerificationFlag = "COMPLETE", "PRELIMINARY", "UNVERIFIED"
    report.CurrentRequestedProcedureEvidenceSequence = [_evidence([source.header, *illustrations])]
    report.PerformedProcedureCodeSequence = []
    report.ReferencedPerformedProcedureStepSequence = []
    report.update(_content(result, source, illustrations)[0])
    return report


def _evidence(images: Sequence[Dataset]) -> Dataset:
    """Return references to the images, all of one study, that stand in the report."""
    study = Dataset()
    study.StudyInstanceUID = images[0].StudyInstanceUID
    study.ReferencedSeriesSequence = []
    for image in images:
        series = Dataset()
        series.SeriesInstanceUID, series.ReferencedSOPSequence = image.SeriesInstanceUID, [reference_to(image)]
        study.ReferencedSeriesSequence.append(series)
    return study


def _content(result: Result, source: Source, illustrations: Sequence[Dataset]) -> MeasurementReport:
    model = result.model
    said = codes.SCT.Indeterminate if result.indeterminate else _code("class", result.predicted_class)
    evaluations = [(_code("predicted class", "", "Predicted class"), said)]
    if result.doubt is not None:
        reason = _code("doubt", result.doubt, REASONS[result.doubt])
        evaluations.append((_code("doubt", "", "Why the result is indeterminate"), reason))
    kind, frames = source.header.SOPClassUID, list(source.frames) or None
    image = (kind, source.header.SOPInstanceUID, None if kind in _ONE_FRAME else frames)
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(result_uid("tracking", model, source), "Classification of the image"),
        algorithm_id=AlgorithmIdentification(model.name, model.version, parameters=_parameters(model)),
        qualitative_evaluations=[QualitativeEvaluation(name, value) for name, value in evaluations],
        measurements=[
            Measurement(_code("probability", name, f"Probability of {name}"), value, codes.UCUM.NoUnits)
            for name, value in result.probabilities.items()
        ],
        source_images=[SourceImageForMeasurementGroup(*image)],
    )
    saliency, contains = _code("saliency", "", "Saliency map"), RelationshipTypeValues.CONTAINS
    for shown in illustrations:
        reference = (shown.SOPClassUID, shown.SOPInstanceUID)
        group[0].ContentSequence.append(ImageContentItem(saliency, *reference, relationship_type=contains))
    return MeasurementReport(
        observation_context=ObservationContext(observer_device_context=_observer(model)),
        procedure_reported=codes.SCT.ImagingProcedure,
        imaging_measurements=[group],
    )


def _observer(model: ModelIdentity) -> ObserverContext:
    device = DeviceObserverIdentifyingAttributes(
        uid=derived_uid("device", model),
        name=model.name,
        manufacturer_name=OWN_MANUFACTURER,
        model_name=model.name,
        serial_number=model.weights_sha256,
    )
    return ObserverContext(codes.DCM.Device, device)


def _parameters(model: ModelIdentity) -> list[str]:
    """Say all that decides a result beside the image, one parameter a text."""
    values = {**model.record(), "temperature": model.temperature or 1.0}
    names = ("weights_sha256", "classes_sha256", "temperature", "threshold", "outlier_threshold")
    return [f"{name} = {values[name]}" for name in names if values[name] is not None]


def _code(kind: str, name: str, meaning: str | None = None) -> CodedConcept:
    """Return a code of our scheme: the same kind and name have the same code with any model."""
    value = hashlib.sha256(f"{kind} {name}".encode()).hexdigest()[:16]
    return CodedConcept(value, SCHEME, short(name if meaning is None else meaning))
