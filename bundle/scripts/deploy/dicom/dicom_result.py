"""What every result in DICOM has, report or picture: the study of its image, the model as its device, its own UIDs."""

from __future__ import annotations

import io
import json
import uuid
from datetime import datetime

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from scripts import bundle_version
from scripts.imaging.decoding.dicom import OWN_MANUFACTURER, PATIENT_AND_STUDY
from scripts.imaging.decoding.reasons import EXPLANATIONS, ImageRefused, Reason
from scripts.imaging.transforms.scans import SourceImage
from scripts.model.decisions.results import ModelIdentity

SERIES_NUMBER = 990
NOT_VERIFIED = "AI result, not verified"
"""What every result says of itself, in pixels or in words."""
SERIES_DESCRIPTION = "Classification (not for diagnosis)"
_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
_HOW_REMOVED = ("DeidentificationMethod", "DeidentificationMethodCodeSequence")
EMPTY_AT_LEAST = (  # type 2: present, if empty
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyID", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName"),
)


def dicom_result(sop_class: UID, modality: str, model: ModelIdentity, source: SourceImage, *shown: str) -> Dataset:
    """Begin a result: all that does not depend on its kind.

    The same model and picture give the same UIDs, so that an archive keeps a result once. Results of the images of a
    series form a series, of each modality.

    Args:
        sop_class: of the result.
        modality: of the result.
        model: which model it is of.
        source: the picture it is of.
        shown: UIDs of what else it shows, without which it would be another result.

    Returns:
        A data set with file meta information, in the study of the image.

    Raises:
        ImageRefused: when the image lacks the identifiers that say where the result belongs, or they cannot be read.
    """
    header, now = source.header, datetime.now()
    _require_identifiers(source)
    result = Dataset()
    result.file_meta = FileMetaDataset()
    result.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    result.SpecificCharacterSet = "ISO_IR 192"
    result.SOPClassUID, result.SOPInstanceUID = sop_class, result_uid(modality, model, source, *shown)
    result.SeriesInstanceUID = derived_uid(f"series {modality}", model, str(header.SeriesInstanceUID))
    result.SeriesNumber, result.SeriesDescription, result.Modality = SERIES_NUMBER, SERIES_DESCRIPTION, modality
    result.InstanceNumber = max(1, int(header.get("InstanceNumber") or 1))  # ordered as the images are
    result.ContentDate, result.ContentTime = f"{now:%Y%m%d}", f"{now:%H%M%S.%f}"
    result.Manufacturer, result.ManufacturerModelName = OWN_MANUFACTURER, short(model.name)
    result.DeviceSerialNumber, result.SoftwareVersions = model.weights_sha256, [bundle_version(), short(model.version)]
    for name in EMPTY_AT_LEAST:
        setattr(result, name, "")
    for name in PATIENT_AND_STUDY:
        if name in header:
            result[name] = header[name]
    if result.PatientSex not in ("M", "F", "O"):  # no other word is valid
        result.PatientSex = ""
    if "PatientIdentityRemoved" in result and not any(name in result for name in _HOW_REMOVED):
        result.DeidentificationMethod = "not stated by the image"  # one of the two is required
    return result


def _require_identifiers(source: SourceImage) -> None:
    """Refuse a result that an archive would file under no patient, or in no study."""
    if not all(source.header.get(name) for name in _UIDS):
        message = (
            "a result in DICOM needs the study, series and SOP instance UID of its image, and one is missing or no UID"
        )
        raise ImageRefused(message, Reason.MISSING_IDENTIFIERS)
    if source.unreadable:
        reason = Reason.UNREADABLE_IDENTIFIERS
        names = ", ".join(source.unreadable)
        raise ImageRefused(f"a result in DICOM repeats {names} of its image: {EXPLANATIONS[reason]}", reason)


def result_uid(kind: str, model: ModelIdentity, source: SourceImage, *shown: str) -> UID:
    """Return the UID of what a model says of a picture."""
    return derived_uid(kind, model, str(source.header.SOPInstanceUID), source.shown, *shown)


def derived_uid(kind: str, model: ModelIdentity, *parts: str) -> UID:
    """Return a UID that its parts decide (``2.25.`` and a UUID: PS3.5 B.2)."""
    name = json.dumps([kind, model.record(), *parts])
    return UID(f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, name).int}")


def reference_to(image: Dataset) -> Dataset:
    """Return the item that refers to an image."""
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    return reference


def short(text: str) -> str:
    """Fit a text into a value of 64 characters."""
    plain = "".join(" " if character == "\\" or not character.isprintable() else character for character in text)
    return plain if len(plain) <= 64 else f"{plain[:61]}..."


def dicom_bytes(dataset: Dataset) -> bytes:
    """Return a data set as a DICOM file holds it."""
    file = io.BytesIO()
    pydicom.dcmwrite(file, dataset, enforce_file_format=True)
    return file.getvalue()
