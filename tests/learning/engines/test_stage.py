"""A stage is a few checked values; its data are the right images."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import pytest
import torch

from scripts.learning.engines import ContinualEvents
from scripts.learning.engines.stage import DATA, held_out_items
from scripts.learning.memory import ExemplarMemory
from scripts.learning.tasks import Task
from scripts.utils.errors import UserError


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 0}, "stage training has 0 epochs: use at least 1"),
        ({"epochs": -3}, "stage training has -3 epochs"),
        ({"data": "held"}, "unknown data 'held': choose one of task, task_and_memory, without_held_out, balanced, all"),
        ({"tasks": "second"}, "unknown tasks 'second': choose one of every, first, later, last"),
        ({"name": "resting"}, "unknown stage 'resting': no event RESTING_STARTED"),
    ],
)
def test_bad_values_are_refused(values: dict[str, object], message: str, tiny: SimpleNamespace) -> None:
    with pytest.raises(UserError, match=message):
        tiny.stage(**values)


def test_a_stage_has_its_own_events(tiny: SimpleNamespace) -> None:
    stage = tiny.stage("balanced_finetuning")
    assert stage.started == ContinualEvents.BALANCED_FINETUNING_STARTED
    assert stage.completed == ContinualEvents.BALANCED_FINETUNING_COMPLETED


@pytest.mark.parametrize(
    ("tasks", "expected"), [("every", [1, 2, 3]), ("first", [1]), ("later", [2, 3]), ("last", [3])]
)
def test_a_stage_belongs_to_the_tasks_it_names(tasks: str, expected: list[int], tiny: SimpleNamespace) -> None:
    stage = tiny.stage(tasks=tasks)
    assert [number for number in (1, 2, 3) if stage.belongs_to(number, 3)] == expected
    assert stage.belongs_to(1, 1) == (tasks != "later")


@pytest.fixture
def tasks() -> list[Task]:
    def items(labels: range, count: int) -> tuple[dict[str, object], ...]:
        return tuple({"image": f"{label}-{number}", "label": label} for label in labels for number in range(count))

    return [
        Task("a", ("0", "1"), 0, items(range(2), 5), ()),
        Task("b", ("2", "3"), 2, items(range(2, 4), 9), ()),
        Task("c", ("4",), 4, items(range(4, 5), 7), ()),
    ]


def test_each_kind_of_data_is_what_it_says(tasks: list[Task]) -> None:
    memory = ExemplarMemory(8)
    memory.add(tasks[0].train, torch.randn(10, 3), 2)

    def counts(data: str, number: int) -> dict[int, int]:
        return dict(Counter(item["label"] for item in DATA[data](tasks, number, memory)))

    assert counts("task", 2) == {2: 9, 3: 9}
    assert counts("task_and_memory", 2) == {0: 2, 1: 2, 2: 9, 3: 9}
    assert counts("all", 2) == {0: 5, 1: 5, 2: 9, 3: 9}
    assert counts("all", 3) == {0: 5, 1: 5, 2: 9, 3: 9, 4: 7}
    assert counts("without_held_out", 2) == {0: 1, 1: 1, 2: 8, 3: 8}
    held = held_out_items(tasks, 2, memory)
    assert Counter(item["label"] for item in held) == {0: 1, 1: 1, 2: 1, 3: 1}
    assert not any(item in DATA["without_held_out"](tasks, 2, memory) for item in held)
    assert DATA["without_held_out"](tasks, 1, ExemplarMemory(8)) == list(tasks[0].train)
    assert held_out_items(tasks, 1, ExemplarMemory(8)) == []
    memory.add(tasks[1].train, torch.randn(18, 3), 2)
    assert counts("balanced", 2) == {0: 2, 1: 2, 2: 2, 3: 2}


def test_a_stages_data_can_be_changed_without_changing_the_task(tasks: list[Task]) -> None:
    memory = ExemplarMemory(0)
    for data in DATA:
        DATA[data](tasks, 1, memory).clear()
    assert len(tasks[0].train) == 10
