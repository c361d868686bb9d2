"""Write what a run reached: figures, tables, pictures and curves."""

from __future__ import annotations

import json
import logging
import resource
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate
from torch.utils.tensorboard import SummaryWriter

from scripts.engines.events import ContinualEvents
from scripts.engines.trainer import ContinualTrainer
from scripts.errors import UserError
from scripts.files import cannot_write, write_atomically, write_csv
from scripts.metrics.accuracy_matrix import AccuracyMatrix
from scripts.metrics.plots import accuracy_figure, accuracy_matrix_figure, save_figure
from scripts.metrics.record import RunRecord
from scripts.tasks.task import Task

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
    "calibration_error_before": "calibration error (ECE), validation images",
    "calibration_error_after": "the same with the temperature",
    "calibration_error_by_chance": "the same of a perfectly calibrated model",
    "softmax_accuracy": "final accuracy of the softmax",
    "softmax_mean_class_recall": "final MCR of the softmax",
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
_CURVES = ("final_accuracy", "final_mean_class_recall", "average_accuracy", "average_mean_class_recall", "forgetting")


class ReportHandler:
    """Keep the report of a run: ``metrics.json``, the accuracy matrix as CSV, two pictures and TensorBoard curves.

    Everything but ``timing.json`` is the same, byte for byte, for the same results.

    Args:
        output_dir: the run's folder.
        record: what was measured.
    """

    def __init__(self, output_dir: str, record: RunRecord) -> None:
        self.output_dir = Path(output_dir)
        self.record = record
        self.logger = logging.getLogger(__name__)

    def attach(self, engine: ContinualTrainer) -> None:
        """Write after each evaluation, show the table at the end."""
        engine.add_event_handler(ContinualEvents.TASK_EVALUATED, self.write_task)
        if engine.state.rank == 0:
            engine.add_event_handler(ContinualEvents.RUN_COMPLETED, self.log_table)

    def write_task(self, engine: ContinualTrainer) -> None:
        """Write the report of the tasks learnt so far."""
        if engine.state.rank == 0:
            self.write(self.record.matrix, engine.tasks, self.record.figures)
            self.write_timing(self.record.stages)

    def write(self, matrix: AccuracyMatrix, tasks: Sequence[Task], figures: Mapping[str, Any]) -> dict[str, Any]:
        """Write the report after a task.

        Args:
            matrix: the evaluations so far.
            tasks: at least the tasks learnt so far; later ones are left out.
            figures: see :func:`collect_metrics`.

        Returns:
            What ``metrics.json`` holds.

        Raises:
            UserError: the folder cannot be written; every file is then the old one or the new one.
        """
        metrics = collect_metrics(matrix, tasks, figures)
        names = [task["name"] for task in metrics["tasks"]]
        rows = metrics["accuracy_matrix"]
        write_csv(
            self.output_dir / "accuracy_matrix.csv",
            [["after learning", *names], *([name, *row] for name, row in zip(names, rows, strict=True))],
        )
        save_figure(self.output_dir / "accuracy_matrix.png", accuracy_matrix_figure(rows, names))
        save_figure(
            self.output_dir / "accuracy.png",
            accuracy_figure(metrics["accuracies"], metrics["mean_class_recalls"], names),
        )
        self._write_curves(metrics)
        # last of all: who waits for this file finds the others in place
        write_json(self.output_dir / "metrics.json", metrics)
        return metrics

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
        """Log the table of the run in ``output_dir``, finished now or earlier.

        Raises:
            UserError: there is no readable ``metrics.json``.
        """
        path = self.output_dir / "metrics.json"
        try:
            metrics = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"cannot read {path}: {error}; train into this folder first") from error
        self.logger.info("\n%s", table(metrics))

    def _write_curves(self, metrics: Mapping[str, Any]) -> None:
        # opened and closed each time: a killed run then loses no curve
        folder = self.output_dir / "tensorboard"
        step = len(metrics["tasks"])
        try:
            with SummaryWriter(str(folder)) as writer:
                for name in _CURVES:
                    if metrics[name] is not None:
                        writer.add_scalar(name.removeprefix("final_"), metrics[name], step)
        except OSError as error:
            raise cannot_write(folder, error) from error


def collect_metrics(matrix: AccuracyMatrix, tasks: Sequence[Task], figures: Mapping[str, Any]) -> dict[str, Any]:
    """Gather what ``metrics.json`` holds: fractions 0..1, not rounded, None where not measured.

    Args:
        matrix: the evaluations so far.
        tasks: at least the tasks learnt so far; later ones are left out.
        figures: further figures: ``flops_per_image`` (2 x multiply-adds), ``parameters``, ``memory_bytes``,
            ``task_incremental_accuracy_matrix`` and what is read off it, where each image's task is given; with
            ``others`` heads also ``task_identification_accuracy`` and ``open_set``, a dict of ``auroc``, ``fpr95`` and
            ``average_precision`` or None, which is spread over the keys ``open_set_auroc`` and so on.

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
        Two tables, in per cent.
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
    return f"{title}\n\n{matrix}\n\n{figures}"


def write_json(path: Path, content: Any) -> None:
    """Write JSON with sorted keys, atomically.

    Args:
        path: the file.
        content: plain lists, dictionaries, text, finite numbers and None.

    Raises:
        UserError: as :func:`scripts.files.write_atomically`.
    """
    write_atomically(path, json.dumps(content, indent=4, sort_keys=True, allow_nan=False) + "\n")


def peak_memory_bytes() -> int:
    """Return the largest resident memory this process has had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


def _cell(value: float | None, unit: str = "") -> str:
    return "-" if value is None else f"{value * 100:.1f}{unit}"
