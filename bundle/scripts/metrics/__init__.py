"""The accuracy matrix and what is read off it, open-set and clinical figures, and their pictures."""

from __future__ import annotations

from scripts.metrics.accuracy_matrix import AccuracyMatrix, accuracy, mean_class_recall
from scripts.metrics.clinical import class_rows, confusion_matrix, confusion_table, table_of
from scripts.metrics.findings import decisions, finding_rows, mean_of_rows
from scripts.metrics.open_set import mean_open_set, open_set_figures, task_identification_accuracy
from scripts.metrics.record import RunRecord
from scripts.metrics.scores import key_accuracy, scores_and_labels

__all__ = [
    "AccuracyMatrix",
    "RunRecord",
    "accuracy",
    "class_rows",
    "confusion_matrix",
    "confusion_table",
    "decisions",
    "finding_rows",
    "key_accuracy",
    "mean_class_recall",
    "mean_of_rows",
    "mean_open_set",
    "open_set_figures",
    "scores_and_labels",
    "table_of",
    "task_identification_accuracy",
]
