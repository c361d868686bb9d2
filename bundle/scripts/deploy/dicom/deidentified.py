"""Copies of DICOM images that name nobody: dicognito's new identifiers, without the free text that it leaves."""

from __future__ import annotations

import io
from pathlib import Path

from pydicom import DataElement, Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ImplicitVRLittleEndian

from scripts.utils.extras import of_extra

_REPLACED = (
    *("PatientID", "OtherPatientIDs", "AccessionNumber", "StudyID", "StationName"),
    *("PerformedProcedureStepID", "RequestedProcedureID", "ScheduledProcedureStepID"),
)
_TECHNICAL = (
    *("Manufacturer", "ManufacturerModelName", "SoftwareVersions", "ConvolutionKernel"),
    *("RescaleType", "ModalityLUTType", "StackID"),
    *("CodeValue", "CodeMeaning", "CodingSchemeDesignator", "CodingSchemeVersion"),
    *("PixelData", "ICCProfile"),
)

_KEPT = {*_REPLACED, *_TECHNICAL}
_EMPTIED = {"PositionReferenceIndicator", "ContrastBolusAgent"}  # which must be there (type 2)
_FREE = {"AE", "LO", "LT", "OB", "SH", "ST", "UC", "UN", "UR", "UT"}
_CURVES, _OVERLAYS = 0x5000, 0x6000


class Deidentifier:
    """Makes copies among which a patient, a study and a series stay one, under other names, UIDs and dates.

    Person names, identifiers, UIDs, dates and addresses are dicognito's to replace. Private elements, overlays, curves
    and whatever holds free text or bytes of an unknown form are left out, but for what an image cannot be read without.
    Pixels stay as they are. Another object gives other names.

    Raises:
        UserError: dicognito is not installed.
    """

    def __init__(self) -> None:
        with of_extra("deidentify", "de-identifying needs dicognito"):
            from dicognito.anonymizer import Anonymizer
        self._anonymizer = Anonymizer()

    def copy(self, path: Path) -> bytes:
        """Return the copy of a DICOM file, a DICOM file."""
        dataset = dcmread(path, force=True)
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = dataset.file_meta.get("TransferSyntaxUID", ImplicitVRLittleEndian)
        dataset.file_meta, dataset.preamble = meta, None
        dataset.walk(_leave_out)
        self._anonymizer.anonymize(dataset)
        dataset.LongitudinalTemporalInformationModified = "MODIFIED"
        file = io.BytesIO()
        dataset.save_as(file, enforce_file_format=True)
        return file.getvalue()


def is_free_of_text(path: Path) -> bool:
    """Say whether a DICOM file states that nothing is written into its pixels (BurnedInAnnotation NO)."""
    return dcmread(path, force=True, specific_tags=["BurnedInAnnotation"]).get("BurnedInAnnotation") == "NO"


def _leave_out(dataset: Dataset, element: DataElement) -> None:
    if element.keyword in _EMPTIED:
        element.value = ""
    elif (
        element.tag.is_private
        or (element.VR in _FREE and element.keyword not in _KEPT)
        or element.tag.group & 0xFF00 in (_CURVES, _OVERLAYS)
    ):
        del dataset[element.tag]
