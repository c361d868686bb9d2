"""What a structured report says, read back from it: whatever else is told of a result says the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from typing import Any

import pydicom
from highdicom.sr import CodedConcept, MeasurementReport
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import Comprehensive3DSRStorage

from scripts.deploy.dicom.structured_report import DOUBT, PREDICTED


@dataclass(frozen=True)
class ReportedResult:
    """What a report of this bundle says of an image.

    Attributes:
        header: the report; patient and study stand there.
        title: of the report.
        predicted: the class, or that the result is indeterminate.
        doubt: why it is indeterminate; ``None``: it is not.
        probabilities: 0..1, each under the code of "probability of the class".
        device: UID of the model as an observer.
        model: its name, as the device's.
        version: of the model.
    """

    header: Dataset
    title: CodedConcept
    predicted: CodedConcept
    doubt: CodedConcept | None
    probabilities: tuple[tuple[CodedConcept, float], ...]
    device: str
    model: str
    version: str

    @property
    def written(self) -> datetime:
        """When the report was written, by this machine's clock."""
        stamp = f"{self.header.ContentDate}{self.header.ContentTime}"
        return datetime.strptime(stamp, "%Y%m%d%H%M%S.%f").astimezone()


def read_reports(results: Sequence[bytes]) -> list[ReportedResult]:
    """Read the reports among the DICOM files that this bundle makes of an image, in their order."""
    datasets = (pydicom.dcmread(BytesIO(result)) for result in results)
    return [_read(dataset) for dataset in datasets if dataset.SOPClassUID == Comprehensive3DSRStorage]


def _read(report: Dataset) -> ReportedResult:
    content = MeasurementReport.from_sequence([report], is_root=True)
    (group,) = content.get_image_measurement_groups()
    evaluations: dict[Any, Any] = {found.name: found.value for found in group.get_qualitative_evaluations()}
    (observer,) = content.get_observer_contexts()
    (version,) = group[0].ContentSequence.find(codes.DCM.AlgorithmVersion)
    device: Any = observer.observer_identifying_attributes
    return ReportedResult(
        header=report,
        title=CodedConcept.from_dataset(report.ConceptNameCodeSequence[0]),
        predicted=evaluations[PREDICTED],
        doubt=evaluations.get(DOUBT),
        probabilities=tuple((found.name, found.value) for found in group.get_measurements()),
        device=str(device.uid),
        model=str(device.name),
        version=str(version.value),
    )
