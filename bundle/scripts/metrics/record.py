"""All that a run has measured so far, in one object that a checkpoint can hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from numpy.typing import ArrayLike

from scripts.metrics.accuracy_matrix import AccuracyMatrix
from scripts.utils.errors import UserError

SETTINGS = ("class_incremental", "task_incremental")
OF_THE_OTHER = (
    *("accuracy_matrix", "average_accuracy", "final_accuracy"),
    *("average_mean_class_recall", "final_mean_class_recall", "forgetting"),
)
"""What is said of the setting that does not lead."""

T = TypeVar("T")


class RunRecord:
    """What was measured.

    Args:
        setting: which figures lead: an image is told among all classes learnt (``class_incremental``), or its task is
            given, and it is told among that task's (``task_incremental``).

    Attributes:
        matrix: the evaluations after each task, in the leading setting.
        other: the same in the other one.
        figures: cost of the network and, for ``others`` heads, task identification, or what the softmax
            reaches beside nearest means; as ``metrics.json`` has them.
        open_set: open-set figures after each task, for ``others`` heads.
        stages: task, stage and seconds of every stage run.
        history: a row for each epoch of every stage, in order: ``task``, ``stage``, ``epoch`` (from 1), ``loss`` (mean
            over the images), ``learning_rate`` (of the epoch, that of the first group of parameters) and
            ``validation_accuracy`` (0..1; None without validation images).
        confusions: counts after each task, row = true class, column = predicted class; None for a task without a stage.

    Raises:
        UserError: for another setting.
    """

    def __init__(self, setting: str = SETTINGS[0]) -> None:
        if setting not in SETTINGS:
            raise UserError(
                f"unknown setting '{setting}': choose one of {', '.join(SETTINGS)} (key 'save#record#setting')"
            )
        self.setting = setting
        self.matrix = AccuracyMatrix()
        self.other = AccuracyMatrix()
        self.figures: dict[str, Any] = {}
        self.open_set: list[dict[str, float | None] | None] = []
        self.stages: list[dict[str, Any]] = []
        self.history: list[dict[str, Any]] = []
        self.confusions: list[list[list[int]] | None] = []

    def update(self, labels: ArrayLike, among_all: ArrayLike, within_tasks: ArrayLike, sizes: Sequence[int]) -> None:
        """Add what was predicted after a task; figures of the other setting have its name before theirs.

        Args:
            labels: class numbers, [N].
            among_all: predicted class numbers, [N].
            within_tasks: the same where the task of each image is given, [N].
            sizes: number of classes of each task learnt.
        """
        self.matrix.update(labels, self.leading(among_all, within_tasks), sizes)
        self.other.update(labels, self.leading(within_tasks, among_all), sizes)
        name = self.leading(SETTINGS[1], SETTINGS[0])
        self.figures |= {f"{name}_{figure}": getattr(self.other, figure) for figure in OF_THE_OTHER}

    def leading(self, among_all: T, within_tasks: T) -> T:
        """Return what the leading setting says."""
        return among_all if self.setting == SETTINGS[0] else within_tasks

    def state_dict(self) -> dict[str, Any]:
        """Return plain values, for a checkpoint that is loaded with ``weights_only``."""
        return {
            "matrix": self.matrix.state_dict(),
            "other": self.other.state_dict(),
            "figures": dict(self.figures),
            "open_set": list(self.open_set),
            "stages": list(self.stages),
            "history": list(self.history),
            "confusions": list(self.confusions),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned."""
        self.matrix.load_state_dict(state["matrix"])
        self.other.load_state_dict(state["other"])
        self.figures = dict(state["figures"])
        self.open_set = list(state["open_set"])
        self.stages = list(state["stages"])
        self.history = list(state["history"])
        self.confusions = list(state["confusions"])
