"""The answer to an image: a structured report of each of its pictures that counts, and what the report shows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Lock

from pydicom.dataset import Dataset
from pydicom.filereader import read_file_meta_info

from scripts.deploy.dicom.dicom_result import dicom_bytes
from scripts.deploy.dicom.structured_report import make_class_codes, structured_report
from scripts.deploy.inference.classification import ImageClassifier
from scripts.deploy.inference.drift import DriftMonitor
from scripts.deploy.inference.saliency import Saliency
from scripts.imaging.decoding.presentation import split_reference
from scripts.imaging.decoding.reasons import Reason, refused
from scripts.imaging.transforms.scans import read_source_image


class Reporter:
    """Classifies a DICOM file and writes what is found as DICOM.

    Args:
        served: returns the object behind every door, as it is served now, and what draws what each
            report shows; ``None``: none is drawn.
        drift: compares the images that come with those that the model is for; ``None``: nobody asks.
        codes: of classes; see :func:`scripts.deploy.dicom.structured_report.make_class_codes`.

    Raises:
        UserError: for a code that is none.
    """

    def __init__(
        self,
        served: Callable[[], tuple[ImageClassifier, Saliency | None]],
        drift: DriftMonitor | None = None,
        codes: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.served = served
        self.codes = make_class_codes(codes or {})
        self.drift = drift
        self.logger = logging.getLogger(__name__)
        self._monitoring = Lock()

    def __call__(self, file: Path) -> list[bytes]:
        """Return DICOM files; the same image gives the same SOP Instance UIDs. May be called by several threads.

        Raises:
            ImageRefused: with the reason.
        """
        classifier, saliency = self.served()  # one model for all pictures of the file
        parts = (self._results(classifier, saliency, picture) for picture in classifier.pictures(str(file)))
        return [dicom_bytes(part) for found in parts for part in found]

    def _results(self, classifier: ImageClassifier, saliency: Saliency | None, reference: str) -> list[Dataset]:
        """Return the captures of a picture, which its report refers to, and then the report."""
        source = read_source_image(reference)
        assert source is not None, "only DICOM comes here"
        sent_as = _sent_as(split_reference(reference)[0])
        if source.header.get("SOPInstanceUID", sent_as) != sent_as:  # its report would be that of another image
            raise refused(reference, Reason.CORRUPT_HEADER)
        result = classifier.classify(reference)
        with self._monitoring:
            drift = None if self.drift is None else self.drift.add(result)
        if drift is not None and drift.alarm:
            self.logger.warning("Drift: %s.", drift)
        captures = []
        if saliency is not None and saliency.capture is not None:
            drawing = saliency(reference, result)
            captures = [] if drawing is None else [saliency.capture(drawing, result, source)]
        return [*captures, structured_report(result, source, captures, self.codes)]


def _sent_as(path: str) -> str:
    """Return the SOP Instance UID under which a file came, and is known in the queue; empty where nothing says so."""
    try:
        return str(read_file_meta_info(path).MediaStorageSOPInstanceUID)
    except Exception:  # whatever pydicom raises on a broken file
        return ""
