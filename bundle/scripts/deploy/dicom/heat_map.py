"""Where a network looks as a DICOM segmentation of fractions (PS3.3 A.51), for viewers that draw it themselves."""

from __future__ import annotations

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.seg import (
    SegmentAlgorithmTypeValues,
    Segmentation,
    SegmentationFractionalTypeValues,
    SegmentationTypeValues,
    SegmentDescription,
)
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import SecondaryCaptureImageStorage, SegmentationStorage

from scripts.deploy.dicom.dicom_result import EMPTY_AT_LEAST, NOT_VERIFIED, dicom_result, reference_to, short
from scripts.deploy.dicom.structured_report import SALIENCY, names_frames
from scripts.imaging.transforms.scans import SourceImage
from scripts.model.decisions.results import Result


def heat_segmentation(heat: NDArray[np.floating], result: Result, source: SourceImage) -> Dataset:
    """Return a saliency map as a segmentation in the study of its image, one segment, as large as the image.

    Its fractions are of the map's highest value, 0 to 255; the standard has no better word for them than probability.

    Args:
        heat: ``[H, W]``, 0..1.
        result: what it explains.
        source: the image it is of.

    Raises:
        ImageRefused: as :func:`scripts.deploy.dicom.dicom_result.dicom_result`.
    """
    begun, model = dicom_result(SegmentationStorage, "SEG", result.model, source), result.model
    # highdicom asks for the geometry of a CT, and for identifiers as the standard has them: both are none of the map's,
    # which lies on the image's pixels, wherever they are in the patient, and is filed as all results are
    image = Dataset()
    for name in EMPTY_AT_LEAST:
        setattr(image, name, "")
    image.StudyInstanceUID, image.Modality = source.header.StudyInstanceUID, begun.Modality
    image.SOPClassUID, image.SOPInstanceUID = SecondaryCaptureImageStorage, source.header.SOPInstanceUID
    image.SeriesInstanceUID = source.header.SeriesInstanceUID
    image.Rows, image.Columns = heat.shape
    segment = SegmentDescription(
        segment_number=1,
        segment_label=short(f"Saliency of {result.predicted_class}"),
        segmented_property_category=codes.SCT.SpatialAndRelationalConcept,
        segmented_property_type=SALIENCY,
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=AlgorithmIdentificationSequence(
            short(model.name), codes.DCM.ArtificialIntelligence, short(model.version)
        ),
    )
    segmentation = Segmentation(
        [image],
        np.asarray(heat, np.float32)[None],
        SegmentationTypeValues.FRACTIONAL,
        [segment],
        begun.SeriesInstanceUID,
        begun.SeriesNumber,
        begun.SOPInstanceUID,
        begun.InstanceNumber,
        begun.Manufacturer,
        begun.ManufacturerModelName,
        begun.SoftwareVersions[0],
        begun.DeviceSerialNumber,
        fractional_type=SegmentationFractionalTypeValues.PROBABILITY,
        content_label="SALIENCY",
        content_description=f"{NOT_VERIFIED}: Grad-CAM",
        omit_empty_frames=False,
    )
    segmentation.update({element.tag: element for element in begun})
    segmentation.PatientOrientation = source.header.get("PatientOrientation") or ""
    (frame,), (series,) = segmentation.PerFrameFunctionalGroupsSequence, segmentation.ReferencedSeriesSequence
    series.ReferencedInstanceSequence = [reference_to(source.header)]
    derived = frame.DerivationImageSequence[0].SourceImageSequence[0]
    derived.update(reference_to(source.header))
    if source.frames and names_frames(source):
        derived.ReferencedFrameNumber = list(source.frames)
    return segmentation
