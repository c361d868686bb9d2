"""How long a run will still take, by how long what it has done took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scripts.learning.engines.stage import BaseStage, Stage
from scripts.learning.engines.trainer import ContinualTrainer


def passes(engine: ContinualTrainer, number: int, stage: BaseStage) -> float:
    """Return how often a stage of a task passes an image through the network, as far as that is known before.

    Args:
        engine: has the tasks and the memory.
        number: of the task, from 1.
        stage: one of its stages; one without epochs passes none.
    """
    if not isinstance(stage, Stage) or not stage.belongs_to(number, len(engine.tasks)):
        return 0.0
    task, classes = engine.tasks[number - 1], engine.tasks[number - 1].first
    kept = engine.memory.quota(classes) * classes if classes else 0
    seen = classes + len(task.classes)
    images = {
        "task": len(task.train),
        "balanced": engine.memory.quota(seen) * seen,
        "all": sum(len(before.train) for before in engine.tasks[:number]),
    }.get(stage.data, len(task.train) + kept)
    is_once = stage.features is not None and list(stage.trains) == ["head"]  # features are computed once
    return float(images) if is_once else float(images * stage.epochs)


class TimeLeft:
    """Estimates the seconds until all tasks are learnt.

    Args:
        stages: of those that are over, ``task`` (name), ``stage`` (name) and ``seconds``; grows while the run goes on.
    """

    def __init__(self, stages: Sequence[Mapping[str, Any]]) -> None:
        self.stages = stages

    def __call__(self, engine: ContinualTrainer, share: float, seconds: float) -> float:
        """Return the estimate.

        Args:
            engine: in a stage.
            share: of the stage that is done since it began in this process, above 0.
            seconds: since then.
        """
        now, stage = engine.state.task, engine.current_stage
        numbers = {task.name: number for number, task in enumerate(engine.tasks, 1)}
        spent: dict[str, list[float]] = {stage.name: [passes(engine, now, stage) * share, seconds]}
        for over in self.stages:
            own = next((one for one in engine.stages if one.name == over["stage"]), None)
            if own is not None and over["task"] in numbers:
                sums = spent.setdefault(own.name, [0.0, 0.0])
                sums[0] += passes(engine, numbers[over["task"]], own)
                sums[1] += over["seconds"]
        whole = [sum(sums[part] for sums in spent.values()) for part in (0, 1)]

        def rate(name: str) -> float:
            done, took = spent.get(name, whole)
            return took / done if done else 0.0

        return sum(rate(own.name) * count for own, count in self._waiting(engine)) + seconds / share - seconds

    def _waiting(self, engine: ContinualTrainer) -> list[tuple[BaseStage, float]]:
        """Return the stages that have not begun, with their passes."""
        now = engine.state.task
        later = [(number, one) for number in range(now + 1, len(engine.tasks) + 1) for one in engine.stages]
        rest = [(now, one) for one in engine.stages[engine.stages_completed + 1 :]]
        return [(one, passes(engine, number, one)) for number, one in [*rest, *later]]
