"""TensorBoard's file of a run: its curves, pictures and settings, each once however often the run was stopped."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from scripts.learning.run_config import plain_settings, read_run_config, what_matters
from scripts.metrics.record import RunRecord
from scripts.utils.files import CONFIG, cannot_write

EPOCH_CURVES = ("loss", "learning_rate", "validation_accuracy")
TASK_CURVES = (
    "final_accuracy",
    "final_mean_class_recall",
    "average_accuracy",
    "average_mean_class_recall",
    "forgetting",
)


class TensorBoard:
    """Keeps one file of events, which holds what the record has.

    A process begins it anew with all that was noted before, since a process that was killed may have written what the
    next one learns again. The curves of an epoch count the epochs of the run, those of a task count tasks.

    Args:
        folder: the run's; events go to ``tensorboard`` in it.
        record: what was measured.
        pictures: gives those of a task, counted from 1, by name.
    """

    def __init__(
        self, folder: Path, record: RunRecord, pictures: Callable[[int], Mapping[str, bytes | Image.Image]]
    ) -> None:
        self.folder = folder
        self.record = record
        self.pictures = pictures
        self.epochs, self.tasks = 0, 0  # that are written
        self._writer: SummaryWriter | None = None

    def update(self) -> None:
        """Write what was noted since the last time.

        Raises:
            UserError: the folder cannot be written.
        """
        try:
            writer = self._writer = self._writer or self._begin()
            self._write(writer)
            writer.flush()
        except OSError as error:
            raise cannot_write(self.folder / "tensorboard", error) from error

    def close(self) -> None:
        """Close the file, so that a later update begins it anew."""
        if self._writer is not None:
            self._writer.close()
        self._writer = None

    def _begin(self) -> SummaryWriter:
        folder = self.folder / "tensorboard"
        for left in folder.glob("events.out.tfevents.*"):
            left.unlink()
        self.epochs, self.tasks = 0, 0
        writer = SummaryWriter(str(folder))
        if (self.folder / CONFIG).is_file():
            settings = plain_settings(what_matters(read_run_config(self.folder)))
            for summary in hparams(settings, dict.fromkeys(map(_title, TASK_CURVES), 0.0)):
                writer._get_file_writer().add_summary(summary)
        return writer

    def _write(self, writer: SummaryWriter) -> None:
        history, matrix = self.record.history, self.record.matrix
        for number, row in enumerate(history[self.epochs :], self.epochs + 1):
            for name in EPOCH_CURVES:
                _add(writer, f"{name}/{row['stage']}", row[name], number)
        for number in range(self.tasks + 1, len(matrix) + 1):
            until = matrix.until(number)
            for name in TASK_CURVES:
                _add(writer, _title(name), getattr(until, name), number)
            for name, picture in self.pictures(number).items():
                image = Image.open(io.BytesIO(picture)) if isinstance(picture, bytes) else picture
                writer.add_image(name, np.array(image.convert("RGB")), number, dataformats="HWC")
        self.epochs, self.tasks = len(history), len(matrix)


def _add(writer: SummaryWriter, name: str, value: Any, step: int) -> None:
    if value is not None:
        writer.add_scalar(name, value, step)


def _title(name: str) -> str:
    return name.removeprefix("final_")
