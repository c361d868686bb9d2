"""Averaging happens once a task, when its adapters are tuned, and says so."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ignite.engine import Engine

from scripts.engines import ContinualEvents
from scripts.errors import UserError
from scripts.handlers import AdapterAveragingHandler
from scripts.networks import MergingOptions, merge


def test_tuned_adapters_are_averaged_and_the_event_is_fired(tiny: SimpleNamespace) -> None:
    network = tiny.network(sizes=[2, 2])
    engine = Engine(lambda engine, batch: None)
    engine.register_events(*ContinualEvents)
    averaged: list[list[str]] = []
    AdapterAveragingHandler(network, MergingOptions()).attach(engine)
    engine.add_event_handler(
        ContinualEvents.ADAPTERS_AVERAGED, lambda: averaged.append(list(network.backbone.branches))
    )
    for event in (ContinualEvents.TASK_STARTED, ContinualEvents.ADAPTER_TUNING_STARTED):
        engine.fire_event(event)
    assert averaged == []
    engine.fire_event(ContinualEvents.ADAPTER_TUNING_SETTLED)
    assert averaged == [["merged"]]
    for block in network.backbone.blocks.values():
        expected = merge([block.adapters[f"task{number}"].state_dict() for number in range(2)])
        assert not tiny.changed_keys(expected, block.adapters["merged"].state_dict())


def test_an_unknown_strategy_is_refused_before_training(tiny: SimpleNamespace) -> None:
    with pytest.raises(UserError, match="unknown merging strategy 'no_such': choose one of average"):
        MergingOptions("no_such")


def test_a_run_averages_once_a_task(finished: SimpleNamespace, finished_acl: SimpleNamespace) -> None:
    assert finished.events.count("adapters_averaged") == 2
    assert finished_acl.events.count("adapters_averaged") == 0
