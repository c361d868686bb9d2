"""Exemplars are chosen before balanced fine-tuning, by the right features, and cut down when the task is learnt."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from scripts.learning.features import FeatureExtractor
from scripts.learning.handlers import MemoryHandler
from scripts.learning.memory import ExemplarMemory, select
from scripts.utils.errors import UserError


def make_handler(tiny: SimpleNamespace, network: Any, memory: ExemplarMemory) -> MemoryHandler:
    return MemoryHandler(memory, network, FeatureExtractor(network, tiny.transform(), 8))


def test_fine_tuning_sees_equally_many_images_of_every_class(finished: SimpleNamespace) -> None:
    # 8 // 2 = 4 images of each old class, hence of each new one; 8 // 4 = 2 once all four are learnt
    seen = [(stage.name, stage.images) for stage in finished.stages]
    assert seen[-2:] == [
        ("adapter_tuning", {0: 4, 1: 4, 2: 6, 3: 6}),
        ("balanced_finetuning", {0: 4, 1: 4, 2: 4, 3: 4}),
    ]
    assert {label: len(kept) for label, kept in finished.memory.classes.items()} == {0: 2, 1: 2, 2: 2, 3: 2}
    assert len(finished.memory.items()) <= finished.memory.size


def test_without_fine_tuning_exemplars_are_chosen_at_the_tasks_end(tmp_path: Path, tiny: SimpleNamespace) -> None:
    tasks, network, memory = tiny.tasks(tmp_path), tiny.network(), ExemplarMemory(6)
    handler = make_handler(tiny, network, memory)
    tiny.trainer(network, tasks, [tiny.stage(data="task_and_memory")], [handler], memory).run()
    assert {label: len(kept) for label, kept in memory.classes.items()} == {0: 1, 1: 1, 2: 1, 3: 1}


@pytest.mark.parametrize(("space", "branch"), [("inference", "merged"), ("newest", "task1")])
def test_the_selection_reads_the_space_it_is_told(
    space: str, branch: str, tmp_path: Path, tiny: SimpleNamespace
) -> None:
    network, memory = tiny.network(sizes=[2, 2], seed=1), ExemplarMemory(8, space=space)
    network.merge()
    task = tiny.tasks(tmp_path, train=12)[1]
    handler = make_handler(tiny, network, memory)
    handler.select(SimpleNamespace(current_task=task))  # type: ignore[arg-type]
    assert network.backbone.branches == ["merged"]
    for label in (2, 3):
        items = [item for item in task.train if item["label"] == label]
        with network.through([branch]):
            order = select("herding", handler.features(items), 4)
        with network.through(["merged" if branch == "task1" else "task1"]):
            other = select("herding", handler.features(items), 4)
        assert memory.classes[label] == [items[index] for index in order]
        assert order != other


def test_exemplars_of_a_task_are_chosen_once(tmp_path: Path, tiny: SimpleNamespace) -> None:
    network, memory = tiny.network(sizes=[2]), ExemplarMemory(8)
    engine: Any = SimpleNamespace(current_task=tiny.tasks(tmp_path)[0], fire_event=lambda event: None)
    handler = make_handler(tiny, network, memory)
    handler.select(engine)
    first = dict(memory.classes)
    tiny.randomise(network, 4)
    handler.complete(engine)
    assert memory.classes == first


def test_an_empty_memory_keeps_nothing(tmp_path: Path, tiny: SimpleNamespace) -> None:
    network, memory = tiny.network(sizes=[2]), ExemplarMemory(0)
    handler = make_handler(tiny, network, memory)
    engine: Any = SimpleNamespace(current_task=tiny.tasks(tmp_path)[0], fire_event=lambda event: None)
    handler.complete(engine)
    assert memory.items() == []


def test_an_unknown_space_is_refused_with_the_choice() -> None:
    with pytest.raises(UserError, match="unknown herding space 'old': choose one of inference, newest"):
        ExemplarMemory(8, space="old")
