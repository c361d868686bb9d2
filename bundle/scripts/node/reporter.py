"""The answer to an image: a structured report of each of its pictures that counts, and what the report shows."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from pydicom.dataset import Dataset

from scripts.files import cannot_write
from scripts.inference.classification import ImageClassifier
from scripts.inference.dicom_result import dicom_bytes
from scripts.inference.saliency import Saliency, secondary_capture
from scripts.inference.structured_report import structured_report
from scripts.transforms.scans import read_source


class Reporter:
    """Classifies a DICOM file and writes what is found as DICOM.

    Args:
        classifier: the object behind every door.
        folder: holds the file while it is read, since it is decoded in another process; what was in it is deleted.
        saliency: draws what each report shows, a secondary capture, where it is to make any; ``None``: none.

    Raises:
        UserError: the folder cannot be used.
    """

    def __init__(self, classifier: ImageClassifier, folder: str | Path, saliency: Saliency | None = None) -> None:
        self.classifier = classifier
        self.saliency = saliency if saliency is not None and saliency.captures else None
        self.folder = Path(folder)
        try:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
        except OSError as error:
            raise cannot_write(self.folder, error) from error

    def __call__(self, dicom: bytes) -> list[bytes]:
        """Return DICOM files; the same image gives the same SOP Instance UIDs.

        Raises:
            ImageRefused: with the reason.
            UserError: the folder cannot be written.
        """
        try:
            # a name of its own: decoded files are kept by name
            with tempfile.NamedTemporaryFile(dir=self.folder, suffix=".dcm") as file:
                file.write(dicom)
                file.flush()
                pictures = self.classifier.pictures(file.name)
                return [dicom_bytes(result) for picture in pictures for result in self._results(picture)]
        except OSError as error:
            raise cannot_write(self.folder, error) from error

    def _results(self, reference: str) -> list[Dataset]:
        """Return the captures of a picture, which its report refers to, and then the report."""
        source = read_source(reference)
        assert source is not None, "only DICOM comes here"
        result = self.classifier.classify(reference)
        drawn = [] if self.saliency is None else [self.saliency(reference, result)]
        captures = [secondary_capture(picture, result, source) for picture in drawn]
        return [*captures, structured_report(result, source, captures)]
