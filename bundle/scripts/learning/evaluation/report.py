"""Evaluate the model of any task: confusion matrix, and what it finds of each class."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import Tensor

from scripts.learning.sources.source import Item
from scripts.learning.tasks.labels import widened
from scripts.learning.tasks.record import testable
from scripts.learning.tasks.task import Task
from scripts.metrics.accuracy_matrix import accuracy, mean_class_recall
from scripts.metrics.clinical import class_rows, confusion_matrix, confusion_table, table_of
from scripts.metrics.findings import finding_rows, finding_table, mean_of_rows
from scripts.pictures.canvas import save_figure
from scripts.pictures.runs import confusion_figure
from scripts.utils.errors import UserError
from scripts.utils.files import write_csv


def evaluation_items(tasks: Iterable[Task], classes: int) -> list[Item]:
    """Gather the test images of the tasks that a model knows.

    Args:
        tasks: tasks in the order they were learnt; one whose test images are gone is left out.
        classes: how many classes the model knows; images of later ones are left out. Labels of findings say something
            of as many.

    Raises:
        UserError: when no task is left.
    """
    found: list[Item] = []
    for task in tasks:
        items = widened(task.test, classes) if task.first < classes else []
        if items and testable(task):
            found += items
        elif items:
            logging.getLogger(__name__).warning("Not tested: %s, some of its test images are gone.", task.name)
    if not found:
        raise UserError("the test images of all tasks are gone: put at least those of one task back to evaluate")
    return found


class ClinicalReport:
    """Write the confusion matrix, and sensitivity, specificity and AUROC of each class, when an evaluator is done.

    Args:
        output_dir: where ``confusion_matrix.csv``, ``confusion_matrix.png`` and ``classes.csv`` go; of several findings
            an image ``classes.csv`` alone.
        classes: names, in the order of the network's outputs.
        thresholds: of findings, from which score on each is present; ``None``: the classes exclude each other.
    """

    def __init__(self, output_dir: str, classes: Sequence[str], thresholds: Sequence[float] | None = None) -> None:
        self.output_dir = Path(output_dir)
        self.classes = list(classes)
        self.thresholds = thresholds
        self.labels: list[Tensor] = []
        self.logits: list[Tensor] = []
        self.logger = logging.getLogger(__name__)

    def attach(self, engine: Engine) -> None:
        """Start afresh, take each batch, write at the end."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.take)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def start(self) -> None:
        """Drop what an earlier evaluation left."""
        self.labels.clear()
        self.logits.clear()

    def take(self, engine: Engine) -> None:
        """Take a batch: ``pred`` is logits [B, C], ``label`` class numbers [B], or what is said of findings [B, C]."""
        output: Any = engine.state.output
        self.labels.append(output["label"].cpu())
        self.logits.append(output["pred"].cpu())

    def write(self) -> None:
        """Write the tables and the picture, and say one line.

        Raises:
            UserError: when the folder cannot be written.
        """
        if self.thresholds is None:
            self._write_classes()
        else:
            self._write_findings(self.thresholds)

    def _write_findings(self, thresholds: Sequence[float]) -> None:
        labels, scores = torch.cat(self.labels).numpy(), torch.cat(self.logits).numpy()
        rows = finding_rows(labels, scores, self.classes, thresholds)
        write_csv(self.output_dir / "classes.csv", table_of(rows))
        means = [mean_of_rows(rows, figure) for figure in ("auroc", "average_precision")]
        self.logger.info(
            "Mean AUROC %s, mAP %s on %d images of %d findings: %s\n%s",
            *("-" if mean is None else f"{100 * mean:.1f} %" for mean in means),
            len(labels),
            len(rows),
            self.output_dir,
            finding_table(rows),
        )

    def _write_classes(self) -> None:
        labels = torch.cat(self.labels).numpy()
        # in double precision: in single, sure predictions round to the same 1 and tie, which changes the AUROC
        probabilities = torch.cat(self.logits).double().softmax(1).numpy()
        predictions = probabilities.argmax(1)
        counts = confusion_matrix(labels, predictions, len(self.classes))
        write_csv(self.output_dir / "confusion_matrix.csv", confusion_table(counts, self.classes))
        save_figure(self.output_dir / "confusion_matrix.png", confusion_figure(counts, self.classes))
        rows = class_rows(labels, probabilities, self.classes)
        write_csv(self.output_dir / "classes.csv", table_of(rows))
        self.logger.info(
            "Accuracy %.1f %%, mean class recall (MCR) %.1f %% on %d images of %d classes: %s",
            100 * (accuracy(labels, predictions) or 0.0),
            100 * (mean_class_recall(labels, predictions) or 0.0),
            len(labels),
            len(self.classes),
            self.output_dir,
        )
