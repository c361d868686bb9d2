"""Before tuning a task has adapters and an auxiliary head of its own; after it, the head has taken them over."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from ignite.engine import Engine

from scripts.learning.engines import ContinualEvents
from scripts.learning.handlers import AdapterTuningHandler


def make_engine() -> Engine:
    engine = Engine(lambda engine, batch: None)
    engine.register_events(*ContinualEvents)
    engine.round = 0  # type: ignore[attr-defined]
    return engine


def test_a_task_gets_adapters_from_the_one_before_and_a_head_with_others(tiny: SimpleNamespace) -> None:
    network, engine = tiny.network(sizes=[2]), make_engine()
    AdapterTuningHandler(network).attach(engine)
    network.merge()
    network.grow(3)
    engine.fire_event(ContinualEvents.ADAPTER_TUNING_STARTED)
    assert network.backbone.branches == ["task1"]
    for block in network.backbone.blocks.values():
        first, second = (block.adapters[name].state_dict() for name in ("task0", "task1"))
        assert not tiny.changed_keys(first, second)
    assert network.auxiliary.out_features == 4


def test_the_auxiliary_head_is_handed_over_and_dropped(tiny: SimpleNamespace) -> None:
    network, engine = tiny.network(sizes=[2]), make_engine()
    AdapterTuningHandler(network).attach(engine)
    network.grow(3)
    old = network.head.linear.weight[:2].clone()
    engine.fire_event(ContinualEvents.ADAPTER_TUNING_STARTED)
    auxiliary = network.auxiliary.weight.clone()
    engine.fire_event(ContinualEvents.ADAPTER_TUNING_SETTLED)
    assert network.auxiliary is None
    assert torch.equal(network.head.linear.weight, torch.cat([old, auxiliary[:3]]))
