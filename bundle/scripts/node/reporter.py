"""The answer to an image: a structured report of each of its pictures that counts."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from scripts.files import cannot_write
from scripts.inference.classification import ImageClassifier
from scripts.inference.dicom_result import dicom_bytes
from scripts.inference.structured_report import structured_report
from scripts.transforms.scans import read_source


class Reporter:
    """Classifies a DICOM file and writes what is found as DICOM.

    Args:
        classifier: the object behind every door.
        folder: holds the file while it is read, since it is decoded in another process; what was in it is deleted.

    Raises:
        UserError: the folder cannot be used.
    """

    def __init__(self, classifier: ImageClassifier, folder: str | Path) -> None:
        self.classifier = classifier
        self.folder = Path(folder)
        try:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
        except OSError as error:
            raise cannot_write(self.folder, error) from error

    def __call__(self, dicom: bytes) -> list[bytes]:
        """Return the reports, DICOM files; the same image gives the same SOP Instance UIDs.

        Raises:
            ImageRefused: with the reason.
            UserError: the folder cannot be written.
        """
        try:
            # a name of its own: decoded files are kept by name
            with tempfile.NamedTemporaryFile(dir=self.folder, suffix=".dcm") as file:
                file.write(dicom)
                file.flush()
                return [self._report(picture) for picture in self.classifier.pictures(file.name)]
        except OSError as error:
            raise cannot_write(self.folder, error) from error

    def _report(self, reference: str) -> bytes:
        source = read_source(reference)
        assert source is not None, "only DICOM comes here"
        return dicom_bytes(structured_report(self.classifier.classify(reference), source))
