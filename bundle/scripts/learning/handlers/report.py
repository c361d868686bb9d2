"""Write what a run reached: figures, tables, pictures and curves."""

from __future__ import annotations

import json
import logging
import resource
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Events
from PIL import Image
from tabulate import tabulate

from scripts.imaging.decoding.scans import is_scan
from scripts.imaging.transforms.scans import file_of
from scripts.learning.engines.events import ContinualEvents
from scripts.learning.engines.trainer import ContinualTrainer
from scripts.learning.features.extractor import FeatureExtractor
from scripts.learning.handlers.history import HistoryHandler
from scripts.learning.handlers.tensorboard import TensorBoard
from scripts.learning.planning.contact_sheet import contact_sheet
from scripts.learning.tasks.labels import numbers_of
from scripts.learning.tasks.record import image_exists
from scripts.learning.tasks.task import Task
from scripts.metrics.accuracy_matrix import AccuracyMatrix
from scripts.metrics.findings import finding_table
from scripts.metrics.record import RunRecord
from scripts.pictures.canvas import png_of
from scripts.pictures.runs import (
    accuracy_figure,
    accuracy_matrix_figure,
    candidates_figure,
    confusion_figure,
    curves_figure,
)
from scripts.utils.errors import UserError
from scripts.utils.files import WEIGHTS, write_atomically, write_csv
from scripts.utils.running import command_name

_READ_OFF = (
    "average_accuracy",
    "final_accuracy",
    "average_mean_class_recall",
    "final_mean_class_recall",
    "forgetting",
    "backward_transfer",
)
_PER_CENT = {
    "average_accuracy": "average accuracy over stages",
    "final_accuracy": "final accuracy",
    "average_mean_class_recall": "average mean class recall (MCR)",
    "final_mean_class_recall": "final mean class recall (MCR)",
    "forgetting": "forgetting",
    "backward_transfer": "backward transfer",
    "task_incremental_average_accuracy": "average accuracy, the task given",
    "task_incremental_final_accuracy": "final accuracy, the task given",
    "class_incremental_average_accuracy": "average accuracy, the task not given",
    "class_incremental_final_accuracy": "final accuracy, the task not given",
    "calibration_error_before": "calibration error (ECE), validation images",
    "calibration_error_after": "the same with the temperature",
    "calibration_error_low": "its 95 % interval, from",
    "calibration_error_high": "to",
    "calibration_error_by_chance": "the same of a perfectly calibrated model",
    "softmax_accuracy": "final accuracy of the softmax",
    "softmax_mean_class_recall": "final MCR of the softmax",
    "mean_auroc": "mean AUROC of the findings",
    "mean_average_precision": "mean average precision (mAP)",
    "auroc_forgetting": "forgetting, of the mean AUROC",
    "task_identification_accuracy": "task identification accuracy",
    "open_set_auroc": "open-set AUROC",
    "open_set_fpr95": "open-set FPR at 95 % TPR",
    "open_set_average_precision": "open-set average precision",
}
_AMOUNTS = {
    "flops_per_image": ("FLOPs an image (2 x multiply-adds)", 1e9, "G"),
    "parameters": ("parameters", 1e6, "M"),
    "memory_bytes": ("kept between tasks", 2**20, "MiB"),
}
_HISTORY = ("task", "stage", "epoch", "loss", "learning_rate", "validation_accuracy")
_SHEET = {"images": 6, "columns": 6, "tile": 96}
"""Training images of a class on a task's contact sheet, images side by side, and their side in pixels."""


class ReportHandler:
    """Keep the report of a run: ``metrics.json``, tables as CSV, pictures, and what TensorBoard shows.

    Everything but ``timing.json`` and TensorBoard's file is the same, byte for byte, for the same results.

    Args:
        output_dir: the run's folder.
        record: what was measured.
        features: gives images and features for the validation accuracy of each epoch; ``None``: no epoch is noted.
        validation_images: see :class:`scripts.learning.handlers.HistoryHandler`.
    """

    def __init__(
        self,
        output_dir: str,
        record: RunRecord,
        features: FeatureExtractor | None = None,
        validation_images: int = 0,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.record = record
        self.history = None if features is None else HistoryHandler(record, features, validation_images)
        self.tasks: Sequence[Task] = ()
        self.tensorboard = TensorBoard(self.output_dir, record, self._shown_of)
        self.drawn: dict[str, bytes] = {}
        self.logger = logging.getLogger(__name__)

    def attach(self, engine: ContinualTrainer) -> None:
        """Note each epoch, write after each epoch, stage and evaluation, show the table at the end."""
        if self.history is not None:
            self.history.attach(engine)
        if engine.state.rank > 0:
            return
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.write_curves)
        engine.add_event_handler(ContinualEvents.STAGE_COMPLETED, self.write_history)
        engine.add_event_handler(ContinualEvents.TASK_EVALUATED, self.write_task)
        engine.add_event_handler(ContinualEvents.RUN_COMPLETED, self.log_table)
        engine.add_event_handler(ContinualEvents.RUN_COMPLETED, self.tensorboard.close)

    def write_curves(self, engine: ContinualTrainer) -> None:
        """Let TensorBoard show the epoch."""
        self.tasks = engine.tasks
        self.tensorboard.update()

    def write_history(self) -> None:
        """Write ``history.csv``, a row an epoch."""
        if self.record.history:
            rows = [[row[name] for name in _HISTORY] for row in self.record.history]
            write_csv(self.output_dir / "history.csv", [_HISTORY, *rows])

    def write_task(self, engine: ContinualTrainer) -> None:
        """Write the report of the tasks learnt so far."""
        self.write(engine.tasks)
        self.write_timing(self.record.stages)

    def write(self, tasks: Sequence[Task]) -> dict[str, Any]:
        """Write the report after a task.

        Args:
            tasks: at least the tasks learnt so far; later ones are left out.

        Returns:
            What ``metrics.json`` holds.

        Raises:
            UserError: the folder cannot be written; every file is then the old one or the new one.
        """
        self.tasks = tasks
        metrics = collect_metrics(self.record.matrix, tasks, self.record.figures)
        names = [task["name"] for task in metrics["tasks"]]
        rows = metrics["accuracy_matrix"]
        write_csv(
            self.output_dir / "accuracy_matrix.csv",
            [["after learning", *names], *([name, *row] for name, row in zip(names, rows, strict=True))],
        )
        self.write_history()
        self.drawn = self._draw(len(names))
        for name, picture in self.drawn.items():
            write_atomically(self.output_dir / f"{name}.png", picture)
        self.tensorboard.update()
        # last of all: who waits for this file finds the others in place
        write_json(self.output_dir / "metrics.json", metrics)
        return metrics

    def _draw(self, number: int) -> dict[str, bytes]:
        """Return the pictures of what was reached after so many tasks, by name."""
        until, learnt = self.record.matrix.until(number), self.tasks[:number]
        names = [task.name for task in learnt]
        figures = {
            "accuracy_matrix": accuracy_matrix_figure(until.accuracy_matrix, names),
            "accuracy": accuracy_figure(until.accuracies, until.mean_class_recalls, names),
        }
        counts = self.record.confusions[number - 1] if number <= len(self.record.confusions) else None
        if counts is not None:
            classes = [name for task in learnt for name in task.classes]
            sizes = [len(task.classes) for task in learnt]
            figures["confusion_matrix"] = confusion_figure(np.array(counts), classes, sizes)
        verdicts = self.record.figures.get("candidates", [])[:number]
        if verdicts and verdicts[0]:
            figures["candidates"] = candidates_figure(verdicts, names)
        history = [row for row in self.record.history if row["task"] in names]
        if history:
            figures["curves"] = curves_figure(history)
        return {name: png_of(figure) for name, figure in figures.items()}

    def _shown_of(self, number: int) -> dict[str, bytes | Image.Image]:
        """Return what TensorBoard shows of a task beside its curves; a run that goes on shows those before it, too."""
        drawn = self.drawn if number == len(self.record.matrix) and self.drawn else self._draw(number)
        found: dict[str, bytes | Image.Image] = {name: png for name, png in drawn.items() if name != "curves"}
        task = self.tasks[number - 1]
        items = [item for item in task.train if image_exists(item)]
        if items and not any(is_scan(file_of(str(item["image"]))) for item in items):
            images = {
                name: [str(item["image"]) for item in items if label in numbers_of(item)]
                for label, name in enumerate(task.classes, task.first)
            }
            found["contact_sheet"] = contact_sheet(task.name, images, **_SHEET)
        return found

    def write_timing(self, stages: Sequence[Mapping[str, Any]]) -> None:
        """Write ``timing.json``: seconds a stage, a task and in all, and the highest memory use of this process.

        Args:
            stages: one entry a stage: ``task`` (name), ``stage`` (name) and ``seconds``.

        Raises:
            UserError: the folder cannot be written.
        """
        tasks: dict[str, float] = {}
        for stage in stages:
            tasks[stage["task"]] = tasks.get(stage["task"], 0.0) + stage["seconds"]
        timing = {
            "peak_memory_bytes": peak_memory_bytes(),
            "seconds": sum(tasks.values()),
            "stages": [dict(stage) for stage in stages],
            "tasks": [{"seconds": seconds, "task": task} for task, seconds in tasks.items()],
        }
        write_json(self.output_dir / "timing.json", timing)

    def log_table(self) -> None:
        """Log the table of the run in ``output_dir``, finished now or earlier, and what follows from it.

        Raises:
            UserError: there is no readable ``metrics.json``.
        """
        path = self.output_dir / "metrics.json"
        try:
            metrics = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"cannot read {path}: {error}; train into this folder first") from error
        self.logger.info("\n%s\n\n%s", table(metrics), ending(self.output_dir))


def collect_metrics(matrix: AccuracyMatrix, tasks: Sequence[Task], figures: Mapping[str, Any]) -> dict[str, Any]:
    """Gather what ``metrics.json`` holds: fractions 0..1, not rounded, None where not measured.

    Args:
        matrix: the evaluations so far.
        tasks: at least the tasks learnt so far; later ones are left out.
        figures: further figures: ``flops_per_image`` (2 x multiply-adds), ``parameters``, ``memory_bytes``,
            ``task_incremental_accuracy_matrix`` and what is read off it, where each image's task is given, or
            ``class_incremental_...`` where the run's setting is the other one; with ``others`` heads also
            ``task_identification_accuracy`` and ``open_set``, a dict of ``auroc``, ``fpr95`` and ``average_precision``
            or None, which is spread over the keys ``open_set_auroc`` and so on.

    Returns:
        A dictionary of plain lists and numbers. ``tasks`` holds name and classes of each task as in ``network.json``,
        ``classes`` all class names in the order of their labels.
    """
    learnt = tasks[: len(matrix)]
    if not learnt or len(learnt) < len(matrix):
        raise ValueError(f"{len(matrix)} evaluations of {len(tasks)} tasks")
    further = {name: value for name, value in figures.items() if name != "open_set"}
    if "open_set" in figures:
        open_set = figures["open_set"] or {}
        for name in ("auroc", "fpr95", "average_precision"):
            further[f"open_set_{name}"] = open_set.get(name)
    return {
        "accuracies": list(matrix.accuracies),
        "accuracy_matrix": matrix.accuracy_matrix,
        "classes": [name for task in learnt for name in task.classes],
        "mean_class_recalls": list(matrix.mean_class_recalls),
        "recall_matrix": matrix.recall_matrix,
        "tasks": [{"name": task.name, "classes": list(task.classes)} for task in learnt],
        **{name: getattr(matrix, name) for name in _READ_OFF},
        **further,
    }


def table(metrics: Mapping[str, Any]) -> str:
    """Set the accuracy matrix and the summary as text for a terminal.

    Args:
        metrics: what ``metrics.json`` holds.

    Returns:
        Two tables, in per cent; of several findings an image a third, and the accuracy is the share of the findings
        that are told right, the MCR the mean of their sensitivities and specificities.
    """
    stages = zip(metrics["accuracy_matrix"], metrics["accuracies"], metrics["mean_class_recalls"], strict=True)
    rows = []
    for number, (row, whole, recall) in enumerate(stages):
        later = [""] * (len(row) - number - 1)
        cells = [_cell(value) for value in row[: number + 1]]
        rows.append([number + 1, metrics["tasks"][number]["name"], *cells, *later, _cell(whole), _cell(recall)])
    # columns are numbered: the names of ten tasks do not fit across a terminal
    matrix = tabulate(
        rows,
        headers=["", "after learning", *range(1, len(rows) + 1), "all", "MCR"],
        colalign=("right", "left", *["right"] * (len(rows) + 2)),
        disable_numparse=True,
    )
    summary = [(title, _cell(metrics[name], " %")) for name, title in _PER_CENT.items() if name in metrics]
    summary += [
        (title, f"{metrics[name] / unit:.2f} {symbol}")
        for name, (title, unit, symbol) in _AMOUNTS.items()
        if metrics.get(name) is not None
    ]
    figures = tabulate(summary, colalign=("left", "right"), disable_numparse=True)
    title = "Accuracy (%) on the test images of task 1, 2, ...; all, MCR: of all tasks; -: not measured"
    findings = f"\n\n{finding_table(metrics['findings'])}" if "findings" in metrics else ""
    return f"{title}\n\n{matrix}\n\n{figures}{findings}"


def ending(folder: Path) -> str:
    """Say where the model and the pictures of a run are, and what to do next."""
    pictures = ", ".join(path.name for path in sorted(folder.glob("*.png")))
    return (
        f"Model: {folder / WEIGHTS}\nPictures in {folder}: {pictures}\n"
        f"Next: {command_name()} evaluate {folder}, or {command_name()} classify {folder} IMAGES"
    )


def write_json(path: Path, content: Any) -> None:
    """Write JSON with sorted keys, atomically.

    Args:
        path: the file.
        content: plain lists, dictionaries, text, finite numbers and None.

    Raises:
        UserError: as :func:`scripts.utils.files.write_atomically`.
    """
    write_atomically(path, json.dumps(content, indent=4, sort_keys=True, allow_nan=False) + "\n")


def peak_memory_bytes() -> int:
    """Return the largest resident memory this process has had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


def _cell(value: float | None, unit: str = "") -> str:
    return "-" if value is None else f"{value * 100:.1f}{unit}"
