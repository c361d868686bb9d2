"""A task is known by its class means on the frozen backbone, whatever its adapters are."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Engine

from scripts.learning.engines import ContinualEvents
from scripts.learning.features import FeatureExtractor
from scripts.learning.handlers import AdapterAveragingHandler, TaskGroupsHandler
from scripts.model.networks import LowRank, Merging, TaskGroups
from scripts.utils.errors import UserError


def engine_of(tasks: list, number: int) -> Engine:  # type: ignore[type-arg]
    engine = Engine(lambda engine, batch: None)
    engine.register_events(*ContinualEvents)
    engine.tasks, engine.current_task = tasks, tasks[number]  # type: ignore[attr-defined]
    return engine


def test_it_notes_the_class_means_of_the_plain_backbone(tiny: SimpleNamespace, tmp_path: Path) -> None:
    tasks = tiny.tasks(tmp_path, [2, 2], train=3)
    network, groups = tiny.network("others", sizes=[2, 2]), TaskGroups()
    tiny.awaken(network, tasks)
    features = FeatureExtractor(network, tiny.transform(), 4)
    groups.put(0, torch.zeros(network.backbone.width))
    engine = engine_of(tasks, 1)
    TaskGroupsHandler(network, groups, features).attach(engine)
    engine.fire_event(ContinualEvents.ADAPTER_TUNING_COMPLETED)
    assert network.backbone.branches == ["task1"]
    with network.through(["backbone"]):
        expected = [features.features([item])[0, 0, 0] for item in tasks[1].train]
    halves = [torch.stack(expected[:3]).mean(0), torch.stack(expected[3:]).mean(0)]
    assert expected[0].any()
    torch.testing.assert_close(groups.means[1], torch.stack(halves).mean(0))


def test_the_merge_follows(tiny: SimpleNamespace, tmp_path: Path) -> None:
    tasks = tiny.tasks(tmp_path, [2, 2], train=2)
    network, groups = tiny.network("others", sizes=[2, 2]), TaskGroups()
    groups.put(0, torch.zeros(network.backbone.width))
    engine = engine_of(tasks, 1)
    AdapterAveragingHandler(network, Merging(groups=groups)).attach(engine)
    TaskGroupsHandler(network, groups, FeatureExtractor(network, tiny.transform(), 4)).attach(engine)
    for event in (ContinualEvents.ADAPTER_TUNING_COMPLETED, ContinualEvents.ADAPTER_TUNING_SETTLED):
        engine.fire_event(event)
    assert network.backbone.branches[0] == "merged0"
    assert len(network.backbone.branches) == 2


def test_given_groups_need_no_pass_and_one_for_each_task(tiny: SimpleNamespace, tmp_path: Path) -> None:
    tasks, network = tiny.tasks(tmp_path, [2, 2], train=1), tiny.network("others", sizes=[2])
    groups = TaskGroups(given=[0, 0])
    engine = engine_of(tasks, 0)
    TaskGroupsHandler(network, groups, FeatureExtractor(network, tiny.transform(), 4)).attach(engine)
    engine.fire_event(ContinualEvents.ADAPTER_TUNING_COMPLETED)
    assert groups.means == []
    short = TaskGroupsHandler(network, TaskGroups(given=[0]), FeatureExtractor(network, tiny.transform(), 4))
    with pytest.raises(UserError, match="says no group of each of 2 tasks"):
        short.attach(engine)


def test_groups_need_a_head_a_task_and_adapters_that_stay_apart(tiny: SimpleNamespace) -> None:
    features = SimpleNamespace()
    with pytest.raises(UserError, match="need a head a task: use head 'others', not 'unified'"):
        TaskGroupsHandler(tiny.network(), TaskGroups(), features)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="adapter 'lora' folds into the one backbone"):
        TaskGroupsHandler(tiny.network("others", adapter=LowRank()), TaskGroups(), features)  # type: ignore[arg-type]
