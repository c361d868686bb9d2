"""The answer to an image: a structured report of each of its pictures that counts, and what the report shows."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from pydicom.dataset import Dataset

from scripts.files import cannot_write
from scripts.inference.classification import ImageClassifier
from scripts.inference.dicom_result import dicom_bytes
from scripts.inference.drift import DriftMonitor
from scripts.inference.saliency import Saliency, secondary_capture
from scripts.inference.structured_report import structured_report
from scripts.transforms.scans import read_source


class Reporter:
    """Classifies a DICOM file and writes what is found as DICOM.

    Args:
        served: returns the object behind every door, as it is served now, and what draws the secondary capture that
            each report shows; ``None``: none is drawn.
        folder: holds the file while it is read, since it is decoded in another process; what was in it is deleted.
        drift: compares the images that come with those that the model is for; ``None``: nobody asks.

    Raises:
        UserError: the folder cannot be used.
    """

    def __init__(
        self,
        served: Callable[[], tuple[ImageClassifier, Saliency | None]],
        folder: str | Path,
        drift: DriftMonitor | None = None,
    ) -> None:
        self.served = served
        self.drift = drift
        self.logger = logging.getLogger(__name__)
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
                classifier, saliency = self.served()  # one model for all pictures of the file
                pictures = classifier.pictures(file.name)
                parts = (self._results(classifier, saliency, picture) for picture in pictures)
                return [dicom_bytes(part) for found in parts for part in found]
        except OSError as error:
            raise cannot_write(self.folder, error) from error

    def _results(self, classifier: ImageClassifier, saliency: Saliency | None, reference: str) -> list[Dataset]:
        """Return the captures of a picture, which its report refers to, and then the report."""
        source = read_source(reference)
        assert source is not None, "only DICOM comes here"
        result = classifier.classify(reference)
        drift = None if self.drift is None else self.drift.add(result)
        if drift is not None and drift.alarm:
            self.logger.warning("Drift: %s.", drift)
        drawn = [saliency(reference, result)] if saliency is not None and saliency.captures else []
        captures = [secondary_capture(picture, result, source) for picture in drawn]
        return [*captures, structured_report(result, source, captures)]
