"""What classifying a folder leaves in the output folder, whichever door the images came through."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydicom import Dataset

from scripts.deploy.dicom.dicom_result import dicom_bytes
from scripts.deploy.dicom.structured_report import make_class_codes, structured_report
from scripts.deploy.inference.drift import DriftMonitor
from scripts.deploy.inference.saliency import Drawing, Saliency
from scripts.imaging.decoding.presentation import split_reference
from scripts.imaging.decoding.reasons import ImageRefused, Reason
from scripts.imaging.drawing import png_bytes
from scripts.imaging.transforms.scans import SourceImage, read_source_image
from scripts.model.decisions.results import DIGITS, ModelIdentity, Result
from scripts.utils.errors import UserError
from scripts.utils.files import cannot_write, plain_name, write_atomically, write_csv

TABLE = "predictions.csv"
RECORDS = "predictions.json"
REFUSED = "refused.csv"
RECORD, REPORT, PICTURE, CAPTURE = ".result.json", ".sr.dcm", ".saliency.png", ".saliency.dcm"
"""What the names of an image's own files end with; before it stands the image's name."""

NAME_BYTES = 237
"""Of the 255 that file systems take; the rest is for the longest ending, and a mark while it is being written."""

WRITERS = 4
WAITING = 64  # files that may wait to be written


class ResultFolder:
    """Writes results: the files of an image at once, the lists of all images at the end.

    For every image there is ``<image>.result.json``, for DICOM ``<image>.sr.dcm``, a structured report, and where
    saliency is asked for ``<image>.saliency.png`` (and ``.dcm``), unless the result is indeterminate.
    ``refused.csv``, ``predictions.csv`` and, last of all, ``predictions.json`` say that all images are done: those of
    an earlier run are removed at the start.

    Args:
        output_dir: the folder; nothing is written elsewhere.
        model: which one says it.
        saliency: draws where the model looks; ``None``: no pictures.
        drift: compares the last images with those that the model is for; ``None``: nobody asks.
        codes: of classes; see :func:`scripts.deploy.dicom.structured_report.make_class_codes`.

    Raises:
        UserError: for a code that is none.
    """

    def __init__(
        self,
        output_dir: str,
        model: ModelIdentity,
        saliency: Saliency | None = None,
        drift: DriftMonitor | None = None,
        codes: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.model = model
        self.saliency = saliency
        self.drift = drift
        self.codes = make_class_codes(codes or {})
        self.results: dict[str, Result] = {}
        self.refusals: dict[str, ImageRefused] = {}
        self._reported: dict[str, str] = {}  # the image that a report is of, by the report's UID
        self.logger = logging.getLogger(__name__)
        self._writers = ThreadPoolExecutor(WRITERS, "writer")  # the next image need not wait for the disk
        self._writing: deque[Future[None]] = deque()

    def start(self) -> None:
        """Begin afresh; the reports of an earlier run stay those of its images.

        Raises:
            UserError: when the folder cannot be written.
        """
        self.results, self.refusals = {}, {}
        self._reported = dict(_reports_in(self.output_dir))
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
            record = {"image": name, "refused": refusal.reason.value, "reason": plain_name(str(refusal))}
            self._write(own[RECORD], _json(record))
            self.refusals[name] = refusal
            self.logger.warning("Refused: %s", plain_name(str(refusal)))

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
        header = ["image", "predicted class", "indeterminate", *self.model.classes, "doubt"]
        table = [
            [
                *(name, result.said, str(result.indeterminate).lower()),
                *(f"{value:.{DIGITS}f}" for value in result.probabilities.values()),
                result.doubt or "",
            ]
            for name, result in self.results.items()
        ]
        refused = [(name, refusal.reason.value, plain_name(str(refusal))) for name, refusal in self.refusals.items()]
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
        stem = "/".join(map(_short, (name.removesuffix(picture) + picture.replace("/", "-")).split("/")))
        return {ending: self.output_dir / (stem + ending) for ending in (RECORD, REPORT, PICTURE, CAPTURE)}

    def _files_of(self, name: str, reference: str, result: Result) -> dict[str, str | bytes]:
        """Return what an image's own files hold, by what their names end with.

        Raises:
            ImageRefused: when the image cannot be read any more.
        """
        drawing = None if self.saliency is None else self.saliency(reference, result)
        files: dict[str, str | bytes] = {} if drawing is None else {PICTURE: png_bytes(drawing.picture)}
        record = {"image": name, **result.record(), "model": result.model.record()}
        source = read_source_image(reference)
        if source is not None:
            try:
                reports = self._dicom_files(result, source, drawing)
                self._claim(str(reports[REPORT].SOPInstanceUID), name)
                files |= {ending: dicom_bytes(dataset) for ending, dataset in reports.items()}
                identifiers = {key: str(source.header[key].value) for key in ("StudyInstanceUID", "SOPInstanceUID")}
                record["dicom"] = {**identifiers, "report": str(reports[REPORT].SOPInstanceUID)}
            except ImageRefused as refusal:
                self.logger.warning("No report of %s: %s", name, plain_name(str(refusal)))
                record["dicom"] = {"refused": refusal.reason.value, "reason": str(refusal)}
        return {**files, RECORD: _json(record)}

    def _claim(self, report: str, name: str) -> None:
        """Note which image a report is of.

        Raises:
            ImageRefused: when there is one of this UID, which says it of another image.
        """
        first = self._reported.setdefault(report, name)
        if first != name:
            raise ImageRefused(
                f"its report would be that of {first}, since both have one SOP Instance UID: give each its own, "
                "or classify them into two folders",
                Reason.SAME_INSTANCE,
            )

    def _dicom_files(self, result: Result, source: SourceImage, drawing: Drawing | None) -> dict[str, Dataset]:
        """Return the report of a DICOM image, and the capture that it shows, by what their files' names end with."""
        if drawing is None or self.saliency is None or self.saliency.capture is None:
            return {REPORT: structured_report(result, source, (), self.codes)}
        capture = self.saliency.capture(drawing, result, source)
        return {CAPTURE: capture, REPORT: structured_report(result, source, [capture], self.codes)}


def _reports_in(folder: Path) -> Iterator[tuple[str, str]]:
    """Return UID and image of each report that an earlier run has left."""
    for path in folder.rglob(f"*{RECORD}"):
        if path.with_name(path.name.removesuffix(RECORD) + REPORT).is_file():
            with suppress(OSError, ValueError, KeyError, TypeError):  # what is none of ours
                record = json.loads(path.read_text(encoding="utf-8"))
                yield record["dicom"]["report"], record["image"]


def _short(name: str) -> str:
    """Return a file's name that leaves room for endings: of a longer one the beginning, and a checksum of it all."""
    content = name.encode()
    if len(content) <= NAME_BYTES:
        return name
    return f"{content[: NAME_BYTES - 17].decode(errors='ignore')}-{hashlib.sha256(content).hexdigest()[:16]}"


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=4) + "\n"


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error
