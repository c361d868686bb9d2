"""What a rehearsal measures of a training, and what it makes of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from scripts.learning.engines import AdapterTuning, BalancedFinetuning, ContinualEvents
from scripts.learning.handlers import RehearsalHandler
from scripts.learning.handlers.rehearsal import EPOCHS, _Rehearsed
from scripts.learning.memory import ExemplarMemory
from scripts.learning.tasks import ImageCache, PlannedTasks, Task


def test_every_stage_is_cut_short_and_measured(tiny: Any, tmp_path: Path) -> None:
    tasks = tiny.tasks(tmp_path / "data")
    planned = PlannedTasks(tuple(replace(task, train=10 * task.train) for task in tasks), {})
    run = tiny.run(tasks, tmp_path / "run")
    (evaluator,) = (handler.evaluator for handler in run.trainer.train_handlers if hasattr(handler, "evaluator"))
    handler = RehearsalHandler(planned, evaluator, 5, str(tmp_path / "measured.json"))
    handler.attach(run.trainer)
    epochs = []
    run.trainer.add_event_handler(ContinualEvents.STAGE_COMPLETED, lambda engine: epochs.append(engine.state.epoch))
    run.trainer.run()
    assert max(epochs) == EPOCHS
    found = json.loads((tmp_path / "measured.json").read_text())
    assert [stage["name"] for stage in found["stages"]] == [
        "backbone_training",
        "adapter_tuning",
        "balanced_finetuning",
    ]
    assert min(number for stage in found["stages"] for number in (stage["step"], stage["seconds"])) > 0
    assert sum(stage["seconds"] for stage in found["stages"]) + found["rest"] > found["run"]  # ten times the images
    assert (found["memory"] > 10**8, found["gpu_memory"]) == (True, None)


def task_of(first: int, images: int, learnt: bool = False) -> Task:
    items = tuple({"image": f"{first}-{number}.png", "label": first + number % 2} for number in range(images))
    return Task(f"set{first}", ("a", "b"), first, () if learnt else items, items[:4], items[:2])


@pytest.fixture
def engine() -> Any:
    """What a handler asks of a trainer."""
    settings: dict[str, Any] = {"loss": None, "optimizer": None}
    stages = [AdapterTuning(epochs=5, **settings), BalancedFinetuning(epochs=3, **settings)]
    cache = ImageCache(10_000)
    return SimpleNamespace(stages=stages, memory=ExemplarMemory(16), dataset=SimpleNamespace(cache=cache))


def handler_of(*tasks: Task) -> RehearsalHandler:
    handler = RehearsalHandler(PlannedTasks(tasks, {}), SimpleNamespace(), 4, "")  # type: ignore[arg-type]
    steps = [[9.0, 3.0, 3.0], [2.0, 2.0, 2.0]]
    handler.stages["adapter_tuning"] = _Rehearsed(12, 12, 10.0, steps, [15.0, 7.0])
    return handler


def test_a_stage_costs_its_preparation_its_epochs_and_one_reading(engine: Any) -> None:
    (cost,) = handler_of(task_of(0, 24))._costs(engine)
    preparation, epoch, reading = 10 * (24 + 24) / (12 + 12), 1 + 24 / 4 * 2, 24 / 4 * 1
    assert (cost.name, cost.step, cost.seconds) == ("adapter_tuning", 2, preparation + 5 * epoch + reading)


def test_a_later_task_sees_the_memory_too_and_a_task_learnt_before_costs_nothing(engine: Any) -> None:
    found = handler_of(task_of(0, 24), task_of(2, 40))._foreseen(engine)
    assert [(stage.name, task.first, images) for stage, task, images in found] == [
        ("adapter_tuning", 0, 24),
        ("adapter_tuning", 2, 40 + 16),  # eight of each class learnt
    ]
    found = handler_of(task_of(0, 24, learnt=True), task_of(2, 40))._foreseen(engine)
    assert [(task.first, images) for _, task, images in found] == [(2, 40 + 16)]
    handler = handler_of(task_of(0, 24), task_of(2, 6))
    handler.stages = {"balanced_finetuning": handler.stages["adapter_tuning"]}
    assert [(task.first, images) for _, task, images in handler._foreseen(engine)] == [(2, 2 * 4 + 2 * 3)]


def test_what_is_between_the_stages_grows_with_the_images_that_pass(engine: Any) -> None:
    handler = handler_of(task_of(0, 100), task_of(2, 100))
    handler.tested, handler.testing = 10, 5.0  # half a second an image
    rehearsed = [task_of(0, 12), task_of(2, 12)]
    handler.rests = [(rehearsed[0], 3 + 0.5 * (12 + 6)), (rehearsed[1], 3 + 0.5 * (12 + 12))]
    assert handler._rest(rehearsed) == 2 * 3 + 0.5 * (100 + 6 + 100 + 12)


def test_memory_grows_by_the_images_and_the_maps_that_are_kept(engine: Any) -> None:
    handler = handler_of(task_of(0, 100))
    assert handler._growth(engine) == 0
    engine.dataset.cache._images = {("", str(number)): None for number in range(10)}
    engine.dataset.cache.used_bytes = 500
    assert handler._growth(engine) == 50 * 106 - 500
    engine.dataset.cache.max_bytes = 3000
    handler.stages["adapter_tuning"].map_bytes = 7
    assert handler._growth(engine) == 3000 - 500 + 2 * 7 * (100 - 12)
