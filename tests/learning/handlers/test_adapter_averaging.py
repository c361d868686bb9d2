"""Averaging happens once a task, when its adapters are tuned, and says so."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ignite.engine import Engine

from scripts.learning.engines import ContinualEvents
from scripts.learning.handlers import AdapterAveragingHandler
from scripts.model.networks import CodaPrompt, ContinualNet, Merging, merge
from scripts.utils.errors import UserError


def test_tuned_adapters_are_averaged_and_the_event_is_fired(tiny: SimpleNamespace) -> None:
    network = tiny.network(sizes=[2, 2])
    engine = Engine(lambda engine, batch: None)
    engine.register_events(*ContinualEvents)
    averaged: list[list[str]] = []
    AdapterAveragingHandler(network, Merging()).attach(engine)
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


def test_a_run_averages_once_a_task(finished: SimpleNamespace, finished_acl: SimpleNamespace) -> None:
    assert finished.events.count("adapters_averaged") == 2
    assert finished_acl.events.count("adapters_averaged") == 0


def test_what_stays_in_use_of_every_task_is_not_merged() -> None:
    network = ContinualNet("timm:test_vit", adapter=CodaPrompt(), image_size=32)
    AdapterAveragingHandler(network, None)
    with pytest.raises(UserError, match="adapters 'coda_prompt' of all tasks are in use, none is merged"):
        AdapterAveragingHandler(network, Merging())
