"""What classifying a folder leaves in the output folder, whichever door the images came through."""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset

from scripts.decoding.presentation import split_reference
from scripts.decoding.reasons import ImageRefused
from scripts.edge.results import DIGITS, ModelIdentity, Result
from scripts.errors import UserError
from scripts.files import cannot_write, write_atomically, write_csv
from scripts.inference.dicom_result import dicom_bytes
from scripts.inference.drift import DriftMonitor
from scripts.inference.saliency import Saliency, png_bytes, secondary_capture
from scripts.inference.structured_report import structured_report
from scripts.transforms.scans import Source, read_source

TABLE = "predictions.csv"
RECORDS = "predictions.json"
REFUSED = "refused.csv"
RECORD, REPORT, PICTURE, CAPTURE = ".result.json", ".sr.dcm", ".saliency.png", ".saliency.dcm"
"""What the names of an image's own files end with; before it stands the image's name."""

WRITERS = 4
WAITING = 64  # files that may wait to be written


class ResultFolder:
    """Writes results: the files of an image at once, the lists of all images at the end.

    For every image there is ``<image>.result.json``, for DICOM ``<image>.sr.dcm``, a structured report, and where
    saliency is asked for ``<image>.saliency.png`` (and ``.dcm``). ``refused.csv``, ``predictions.csv`` and, last of
    all, ``predictions.json`` say that all images are done: those of an earlier run are removed at the start.

    Args:
        output_dir: the folder; nothing is written elsewhere.
        identify: says which model it is, once the model is there.
        saliency: draws where the model looks; ``None``: no pictures.
        drift: compares the last images with those that the model is for; ``None``: nobody asks.
    """

    def __init__(
        self,
        output_dir: str,
        identify: Callable[[], ModelIdentity],
        saliency: Saliency | None = None,
        drift: DriftMonitor | None = None,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.identify = identify
        self.saliency = saliency
        self.drift = drift
        self.model: ModelIdentity
        self.results: dict[str, Result] = {}
        self.refusals: dict[str, ImageRefused] = {}
        self.logger = logging.getLogger(__name__)
        self._writers = ThreadPoolExecutor(WRITERS, "writer")  # the next image need not wait for the disk
        self._writing: deque[Future[None]] = deque()

    def start(self) -> None:
        """Begin afresh.

        Raises:
            UserError: when there is no model, or the folder cannot be written.
        """
        self.model = self.identify()
        self.results, self.refusals = {}, {}
        for name in (RECORDS, TABLE, REFUSED):
            _remove(self.output_dir / name)

    def put(self, name: str, reference: str, said: Result | ImageRefused) -> None:
        """Write what is said of an image, or why it is refused; what an earlier run said of it is replaced.

        Args:
            name: what the image is called, a path from the input folder on.
            reference: the image.
            said: what the model says of it, or why it is refused.

        Raises:
            UserError: when the folder cannot be written (of this image or one before), or two images have one name.
        """
        if name in self.results or name in self.refusals:
            raise UserError(f"two images are called {name}: rename one, so that no result is lost")
        own = self._own_files(name, reference)
        for ending in (REPORT, PICTURE, CAPTURE):
            _remove(own[ending])
        try:
            if isinstance(said, ImageRefused):
                raise said
            for ending, content in self._files_of(name, reference, said).items():
                self._write(own[ending], content)
            self.results[name] = said
        except ImageRefused as refusal:
            record = {"image": name, "refused": refusal.reason.value, "reason": str(refusal)}
            self._write(own[RECORD], _json(record))
            self.refusals[name] = refusal
            self.logger.warning("Refused: %s", refusal)

    def _write(self, path: Path, content: str | bytes) -> None:
        """Have a file written, soon; wait where too many are waiting."""
        self._writing.append(self._writers.submit(write_atomically, path, content))
        self.wait(WAITING)

    def wait(self, most: int = 0) -> None:
        """Wait until at most so many files are still to be written.

        Raises:
            UserError: when the folder cannot be written.
        """
        while len(self._writing) > most:
            self._writing.popleft().result()

    def finish(self) -> None:
        """Write the lists of all images.

        Raises:
            UserError: when the folder cannot be written.
        """
        self.wait()
        header = ["image", "predicted class", *self.model.classes, "doubt"]
        table = [
            [
                *(name, result.predicted_class),
                *(f"{value:.{DIGITS}f}" for value in result.probabilities.values()),
                result.doubt or "",
            ]
            for name, result in self.results.items()
        ]
        refused = [(name, refusal.reason.value, str(refusal)) for name, refusal in self.refusals.items()]
        drift = None if self.drift is None else self.drift.last_of(list(self.results.values()))
        if drift is not None and drift.alarm:
            self.logger.warning("Drift: %s.", drift)
        content = {
            "model": self.model.record(),
            "classes": list(self.model.classes),
            "images": [{"image": name, **result.record()} for name, result in self.results.items()],
            "drift": None if drift is None else drift.record(),
            "refused": [dict(zip(("image", "code", "reason"), row, strict=True)) for row in refused],
        }
        write_csv(self.output_dir / REFUSED, [("image", "code", "reason"), *refused])
        write_csv(self.output_dir / TABLE, [header, *table])
        write_atomically(self.output_dir / RECORDS, _json(content))

    def _own_files(self, name: str, reference: str) -> dict[str, Path]:
        """Return where the files of an image go, by what their names end with."""
        picture = split_reference(reference)[1]
        stem = name.removesuffix(picture) + picture.replace("/", "-")
        return {ending: self.output_dir / (stem + ending) for ending in (RECORD, REPORT, PICTURE, CAPTURE)}

    def _files_of(self, name: str, reference: str, result: Result) -> dict[str, str | bytes]:
        """Return what an image's own files hold, by what their names end with.

        Raises:
            ImageRefused: when the image cannot be read any more.
        """
        picture = None if self.saliency is None else self.saliency(reference, result)
        files: dict[str, str | bytes] = {} if picture is None else {PICTURE: png_bytes(picture)}
        record = {"image": name, **result.record(), "model": result.model.record()}
        source = read_source(reference)
        if source is not None:
            try:
                reports = self._dicom_files(result, source, picture)
                files |= {ending: dicom_bytes(dataset) for ending, dataset in reports.items()}
                identifiers = {key: str(source.header[key].value) for key in ("StudyInstanceUID", "SOPInstanceUID")}
                record["dicom"] = {**identifiers, "report": str(reports[REPORT].SOPInstanceUID)}
            except ImageRefused as refusal:
                self.logger.warning("No report of %s: %s", name, refusal)
                record["dicom"] = {"refused": refusal.reason.value}
        return {**files, RECORD: _json(record)}

    def _dicom_files(self, result: Result, source: Source, picture: np.ndarray | None) -> dict[str, Dataset]:
        """Return the report of a DICOM image, and the capture that it shows, by what their files' names end with."""
        if picture is None or self.saliency is None or not self.saliency.captures:
            return {REPORT: structured_report(result, source)}
        capture = secondary_capture(picture, result, source)
        return {CAPTURE: capture, REPORT: structured_report(result, source, [capture])}


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=4) + "\n"


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error
