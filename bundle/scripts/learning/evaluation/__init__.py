"""Figures of the model of any task."""

from scripts.learning.evaluation.report import ClinicalReport, evaluation_items

__all__ = [
    "ClinicalReport",
    "evaluation_items",
]
