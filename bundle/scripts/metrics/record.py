"""All that a run has measured so far, in one object that a checkpoint can hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scripts.metrics.accuracy_matrix import AccuracyMatrix


class RunRecord:
    """What was measured.

    Attributes:
        matrix: the evaluations after each task, among all classes learnt (class-incremental).
        task_incremental: the same where the task of each image is given, among the classes of that task.
        figures: cost of the network and, for ``others`` heads, task identification, or what the softmax
            reaches beside nearest means; as ``metrics.json`` has them.
        open_set: open-set figures after each task, for ``others`` heads.
        stages: task, stage and seconds of every stage run.
        history: a row for each epoch of every stage, in order: ``task``, ``stage``, ``epoch`` (from 1), ``loss`` (mean
            over the images), ``learning_rate`` (of the epoch, that of the first group of parameters) and
            ``validation_accuracy`` (0..1; None without validation images).
        confusions: counts after each task, row = true class, column = predicted class; None for a task without a stage.
    """

    def __init__(self) -> None:
        self.matrix = AccuracyMatrix()
        self.task_incremental = AccuracyMatrix()
        self.figures: dict[str, Any] = {}
        self.open_set: list[dict[str, float | None] | None] = []
        self.stages: list[dict[str, Any]] = []
        self.history: list[dict[str, Any]] = []
        self.confusions: list[list[list[int]] | None] = []

    def state_dict(self) -> dict[str, Any]:
        """Return plain values, for a checkpoint that is loaded with ``weights_only``."""
        return {
            "matrix": self.matrix.state_dict(),
            "task_incremental": self.task_incremental.state_dict(),
            "figures": dict(self.figures),
            "open_set": list(self.open_set),
            "stages": list(self.stages),
            "history": list(self.history),
            "confusions": list(self.confusions),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned."""
        self.matrix.load_state_dict(state["matrix"])
        self.task_incremental.load_state_dict(state["task_incremental"])
        self.figures = dict(state["figures"])
        self.open_set = list(state["open_set"])
        self.stages = list(state["stages"])
        self.history = list(state["history"])
        self.confusions = list(state["confusions"])
