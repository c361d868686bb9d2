"""What a training will take, measured on a few of its batches: see `scripts.learning.planning.estimate_training`."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedEvaluator

from scripts.learning.engines.events import ContinualEvents
from scripts.learning.engines.stage import DATA, Stage
from scripts.learning.engines.trainer import ContinualTrainer
from scripts.learning.features.dataset import FeatureDataset
from scripts.learning.sources.source import Item
from scripts.learning.tasks.planned import PlannedTasks
from scripts.learning.tasks.task import Task

EPOCHS = 2
"""Of each stage: the first decodes the images and warms up, the second is like all that follow."""


@dataclass
class _Rehearsed:
    """A stage of a task as it was rehearsed; times in seconds.

    Args:
        images: that the stage sees.
        task_images: training images of the task.
        preparation: before its first epoch.
        steps: each step of each epoch, with the loading of its batch.
        epochs: each epoch, with what is saved at its end.
        map_bytes: kept of each image in its place.
    """

    images: int
    task_images: int
    preparation: float
    steps: list[list[float]] = field(default_factory=list)
    epochs: list[float] = field(default_factory=list)
    map_bytes: float = 0.0


@dataclass
class StageCost:
    """What a stage will take.

    Args:
        name: of the stage.
        step: seconds of a step, the median.
        seconds: of all its epochs in all tasks, with what is prepared for it.
    """

    name: str
    step: float
    seconds: float = 0.0


class RehearsalHandler:
    """Cuts every stage short, measures it, and writes down what the whole training would take.

    It is to be the last handler: what others do in an event is then part of what is measured.

    Args:
        planned: all that would be trained.
        evaluator: tests the network; its time an image stands for that of any pass that trains nothing.
        batch_size: images a step.
        file: JSON: ``run`` (seconds from the first to the last event of the rehearsal), ``stages``
            (:class:`StageCost`), ``rest`` (seconds between the stages), ``memory`` and ``gpu_memory`` (bytes).
    """

    def __init__(self, planned: PlannedTasks, evaluator: SupervisedEvaluator, batch_size: int, file: str) -> None:
        self.planned = planned
        self.evaluator = evaluator
        self.batch_size = batch_size
        self.file = Path(file)
        self.stages: dict[str, _Rehearsed] = {}
        self.rests: list[tuple[Task, float]] = []
        self.tested = self.testing = 0.0  # images, seconds
        self._started = self._task = self._epoch = self._test = 0.0  # when each began
        self._mark = self._measured = 0.0  # when something last ended; seconds of the task that are a stage's

    def attach(self, engine: ContinualTrainer) -> None:
        """Look at the clock between all that happens."""
        engine.add_event_handler(ContinualEvents.RUN_STARTED, self._start)
        engine.add_event_handler(ContinualEvents.TASK_STARTED, self._start_task)
        engine.add_event_handler(ContinualEvents.STAGE_PREPARED, self._prepared)
        engine.add_event_handler(Events.EPOCH_STARTED, self._start_epoch)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._step)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._end_epoch)
        engine.add_event_handler(ContinualEvents.PROGRESSED, self._progressed)
        engine.add_event_handler(ContinualEvents.RUN_COMPLETED, self._write)
        self.evaluator.add_event_handler(Events.STARTED, self._start_test)
        self.evaluator.add_event_handler(Events.COMPLETED, self._end_test)

    def _start(self) -> None:
        self._started = time.perf_counter()

    def _start_task(self) -> None:
        self._task = self._mark = time.perf_counter()
        self._measured = 0.0

    def _prepared(self, engine: ContinualTrainer) -> None:
        if not isinstance(engine.current_stage, Stage):
            return
        engine.state.max_epochs = min(engine.current_stage.epochs, EPOCHS)
        images = len(engine.dataset)
        preparation = time.perf_counter() - self._mark
        found = _Rehearsed(images, len(engine.current_task.train), preparation)
        seen = engine.data_loader.dataset  # type: ignore[union-attr]
        if isinstance(seen, FeatureDataset):
            found.map_bytes = seen.features.nbytes / images
        self.stages[engine.current_stage.name] = found
        self._measured += preparation

    def _start_epoch(self, engine: ContinualTrainer) -> None:
        self.stages[engine.current_stage.name].steps.append([])
        self._epoch = self._mark = time.perf_counter()

    def _step(self, engine: ContinualTrainer) -> None:
        if engine.state.device.type == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.stages[engine.current_stage.name].steps[-1].append(now - self._mark)
        self._mark = now

    def _end_epoch(self, engine: ContinualTrainer) -> None:
        seconds = time.perf_counter() - self._epoch
        self.stages[engine.current_stage.name].epochs.append(seconds)
        self._measured += seconds

    def _progressed(self, engine: ContinualTrainer) -> None:
        self._mark = time.perf_counter()
        if engine.stages_completed == 0:  # the task is at its end
            rest = self._mark - self._task - self._measured
            self.rests.append((engine.tasks[engine.tasks_completed - 1], rest))

    def _start_test(self) -> None:
        self._test = time.perf_counter()

    def _end_test(self, engine: Engine) -> None:
        self.testing += time.perf_counter() - self._test
        self.tested += len(engine.data_loader.dataset)  # type: ignore[attr-defined]

    def _write(self, engine: ContinualTrainer) -> None:
        content = {
            "run": time.perf_counter() - self._started,
            "stages": [asdict(cost) for cost in self._costs(engine)],
            "rest": self._rest(engine.tasks),
            "memory": _peak_memory() + self._growth(engine),
            "gpu_memory": torch.cuda.max_memory_allocated() if engine.state.device.type == "cuda" else None,
        }
        self.file.write_text(json.dumps(content))

    def _costs(self, engine: ContinualTrainer) -> list[StageCost]:
        costs = {name: StageCost(name, self._step_seconds(found)) for name, found in self.stages.items()}
        for stage, task, images in self._foreseen(engine):
            found = self.stages[stage.name]
            full = min(self.batch_size, found.images)
            reading = max(0.0, statistics.median(found.steps[0][1:] or found.steps[0]) - costs[stage.name].step)
            between = max(0.0, found.epochs[-1] - sum(found.steps[-1]))
            preparing = found.preparation * (len(task.train) + images) / (found.task_images + found.images)
            epoch = between + images / full * costs[stage.name].step
            costs[stage.name].seconds += preparing + stage.epochs * epoch + images / full * reading
        return [cost for cost in costs.values() if cost.seconds]

    def _step_seconds(self, found: _Rehearsed) -> float:
        last = found.steps[-1] if len(found.steps) > 1 else found.steps[0][1:]
        return statistics.median(last or found.steps[0])

    def _foreseen(self, engine: ContinualTrainer) -> list[tuple[Stage, Task, int]]:
        """Return every stage that is to come and was rehearsed, with its task and how many images it will see."""
        tasks = self.planned.tasks
        found: list[tuple[Stage, Task, int]] = []
        for number, task in enumerate(tasks, start=1):
            for stage in engine.stages if task.train else []:
                if isinstance(stage, Stage) and stage.name in self.stages and stage.belongs_to(number, len(tasks)):
                    learnt = tasks[: number if stage.data == "balanced" else number - 1]
                    kept = _kept(learnt, engine.memory.quota)
                    memory: Any = SimpleNamespace(items=lambda kept=kept: kept, quota=engine.memory.quota)
                    found.append((stage, task, len(DATA[stage.data](tasks, number, memory))))
        return found

    def _rest(self, rehearsed: Sequence[Task]) -> float:
        """Return the seconds between the stages: passes that train nothing by their images, the rest by the task."""
        a_pass = self.testing / max(1.0, self.tested)
        fixed = [rest - a_pass * _passes(rehearsed[: rehearsed.index(task) + 1]) for task, rest in self.rests]
        tasks = self.planned.tasks
        new = [number for number, task in enumerate(tasks, start=1) if task.train]
        return sum(max(0.0, statistics.median(fixed)) + a_pass * _passes(tasks[:number]) for number in new)

    def _growth(self, engine: ContinualTrainer) -> int:
        """Return the bytes that the whole training keeps beyond those of the rehearsal: images, and maps of them."""
        cache, growth = engine.dataset.cache, 0.0
        if cache is not None and len(cache):
            images = sum(len(part) for task in self.planned.tasks for part in task.parts)
            growth += min(cache.max_bytes, cache.used_bytes / len(cache) * images) - cache.used_bytes
        maps = [0.0]
        for stage, _, images in self._foreseen(engine):
            found = self.stages[stage.name]
            size = found.map_bytes * (images - found.images)
            in_memory = stage.stem_maps is None or found.map_bytes * images <= stage.stem_maps.max_bytes
            maps.append(2 * size if in_memory else size)  # where they are joined, both are there
        return int(growth + max(maps))


def _peak_memory() -> int:
    """Return the most bytes that this process has held; what getrusage says holds for its parent too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def _kept(learnt: Sequence[Task], quota: Any) -> list[Item]:
    """Return stand-ins of what a memory holds after some tasks: as many items of each class as there will be."""
    classes = sum(len(task.classes) for task in learnt)
    share = quota(classes) if classes else 0
    items: list[Item] = []
    for task in learnt:
        for label in range(task.first, task.first + len(task.classes)):
            count = sum(item["label"] == label for item in task.train) if task.train else share
            items += [{"image": "", "label": label}] * min(share, count)
    return items


def _passes(learnt: Sequence[Task]) -> int:
    """Return the images that pass the network at a task's end: its own, and those that validate and test all tasks."""
    return len(learnt[-1].train) + sum(len(task.validation) + len(task.test) for task in learnt)
