"""A result as DICOM: a Comprehensive 3D SR in the study of the image it is of (TID 1500; IHE AI Results)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

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
from pydicom.sr.coding import Code
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

from scripts.deploy.dicom.dicom_result import derived_uid, dicom_result, reference_to, result_uid, short
from scripts.imaging.decoding.dicom import OWN_MANUFACTURER
from scripts.imaging.transforms.scans import SourceImage
from scripts.model.decisions.results import Doubt, ModelIdentity, Result
from scripts.utils.errors import UserError

SCHEME = "99DYNAMMO"
"""Our private coding scheme, of classes that no table gives a public code."""

REASONS = {
    Doubt.OUTLIER: "The image is unlike those that the model learnt from",
    Doubt.IMPROBABLE: "No class is probable enough",
}
"""What a report says of a result that is indeterminate."""

_ONE_FRAME = (  # classes of images whose frames must not be named, although such files may hold several
    *(ComputedRadiographyImageStorage, CTImageStorage, MRImageStorage, UltrasoundImageStorage),
    *(SecondaryCaptureImageStorage, DigitalXRayImageStorageForPresentation, DigitalXRayImageStorageForProcessing),
)


ClassCodes = Mapping[str, CodedConcept]
Evaluation = tuple[CodedConcept, Code | CodedConcept]
"""What is judged, and how."""


def make_class_codes(table: Mapping[str, Sequence[str]]) -> ClassCodes:
    """Read a table of classes that have a code in a public scheme, as SNOMED CT or ICD-10.

    Args:
        table: by class its scheme as DICOM names it (PS3.16 8: SCT, I10), its code, and what that means.

    Raises:
        UserError: for an entry that is none.
    """
    for name, entry in table.items():
        texts = list(entry) if isinstance(entry, list | tuple) else [entry]
        if len(texts) != 3 or not all(isinstance(text, str) and short(text) == text and text for text in texts):
            raise UserError(
                f"the code of class {name} is {entry!r}: give scheme, code and meaning, three texts (key 'codes')"
            )
    return {name: CodedConcept(value, scheme, meaning) for name, (scheme, value, meaning) in table.items()}


def structured_report(
    result: Result, source: SourceImage, illustrations: Sequence[Dataset] = (), class_codes: ClassCodes | None = None
) -> Dataset:
    """Write a result as a Comprehensive 3D SR: complete, preliminary, unverified.

    The content is highdicom's; the document around it is not, since highdicom logs names that it finds odd, copies by
    tables of the SOP classes it knows, and takes twice the time.

    Args:
        result: what the model says.
        source: the image it says it of.
        illustrations: images of the same study that the report shows beside it (saliency).
        class_codes: of classes that have one; others have a code of our own scheme.

    Returns:
        The data set, with file meta information; the same model, picture and illustrations give the same SOP
        Instance UID.

    Raises:
        ImageRefused: when the source lacks the identifiers that say where the report belongs.
    """
    named = [result.predicted_class] if result.findings is None else list(result.probabilities)
    public = {name: code for name, code in (class_codes or {}).items() if name in named and not result.indeterminate}
    shown = [str(image.SOPInstanceUID) for image in illustrations]
    for code in public.values():  # another code is another report
        shown.append(f"{code.scheme_designator} {code.value} {code.meaning}")
    report = dicom_result(Comprehensive3DSRStorage, "SR", result.model, source, *shown)
    report.CompletionFlag, report.PreliminaryFlag, report.VerificationFlag = "COMPLETE", "PRELIMINARY", "UNVERIFIED"
    report.CurrentRequestedProcedureEvidenceSequence = [_evidence([source.header, *illustrations])]
    report.PerformedProcedureCodeSequence = []
    report.ReferencedPerformedProcedureStepSequence = []
    report.update(_content(result, source, illustrations, _evaluations(result, public))[0])
    return report


def names_frames(source: SourceImage) -> bool:
    """Return whether a reference to an image may name its frames."""
    return source.header.SOPClassUID not in _ONE_FRAME


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


def _evaluations(result: Result, public: ClassCodes) -> list[Evaluation]:
    """Return what a report says of an image beside numbers: its class, or of each finding whether it is there."""
    if result.doubt is not None:
        reason = _code("doubt", result.doubt, REASONS[result.doubt])
        return [(PREDICTED, codes.SCT.Indeterminate), (DOUBT, reason)]
    if result.findings is None:
        return [(PREDICTED, public.get(result.said, _code("class", result.said)))]
    findings: list[Evaluation] = [
        (
            public.get(name, _code("class", name)),
            codes.SCT.Present if name in result.findings else codes.SCT.Absent,
        )
        for name in result.probabilities
    ]
    return [(PREDICTED, _code("findings", result.said)), *findings]


def _content(
    result: Result, source: SourceImage, illustrations: Sequence[Dataset], evaluations: Sequence[Evaluation]
) -> MeasurementReport:
    model = result.model
    number = "Probability" if result.findings is None else "Score"
    frames = list(source.frames) if source.frames and names_frames(source) else None
    image = (source.header.SOPClassUID, source.header.SOPInstanceUID, frames)
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(result_uid("tracking", model, source), "Classification of the image"),
        algorithm_id=AlgorithmIdentification(model.name, model.version, parameters=_parameters(model)),
        qualitative_evaluations=[QualitativeEvaluation(name, value) for name, value in evaluations],
        measurements=[
            Measurement(_code(number.lower(), name, f"{number} of {name}"), value, codes.UCUM.NoUnits)
            for name, value in result.probabilities.items()
        ],
        source_images=[SourceImageForMeasurementGroup(*image)],
    )
    contains = RelationshipTypeValues.CONTAINS
    for shown in illustrations:
        reference = (shown.SOPClassUID, shown.SOPInstanceUID)
        group[0].ContentSequence.append(ImageContentItem(SALIENCY, *reference, relationship_type=contains))
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
    said = [f"{name} = {values[name]}" for name in names if values[name] is not None]
    return said + [f"threshold of {name} = {value}" for name, value in values.get("thresholds", {}).items()]


def _code(kind: str, name: str, meaning: str | None = None) -> CodedConcept:
    """Return a code of our scheme: the same kind and name have the same code with any model."""
    value = hashlib.sha256(f"{kind} {name}".encode()).hexdigest()[:16]
    return CodedConcept(value, SCHEME, short(name if meaning is None else meaning))


PREDICTED = _code("predicted class", "", "Predicted class")
DOUBT = _code("doubt", "", "Why the result is indeterminate")
SALIENCY = _code("saliency", "", "Saliency map")
"""Under which codes a report says its class, why there is none, and where the network looked."""
