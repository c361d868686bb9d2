"""An untrained backbone learns the first task whole; afterwards it never changes again."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from ignite.engine import Engine

from scripts.engines import ContinualEvents
from scripts.handlers import BackboneTrainingHandler


def test_an_untrained_backbone_learns_with_a_plain_head(tiny: SimpleNamespace) -> None:
    network, engine = tiny.network(), Engine(lambda engine, batch: None)
    engine.register_events(*ContinualEvents)
    BackboneTrainingHandler(network).attach(engine)
    network.grow(3)
    head = tiny.copy_of(network.head.state_dict())
    engine.fire_event(ContinualEvents.BACKBONE_TRAINING_STARTED)
    assert network.auxiliary.out_features == 3
    engine.fire_event(ContinualEvents.BACKBONE_TRAINING_COMPLETED)
    assert network.auxiliary is None
    assert not tiny.changed_keys(head, network.head.state_dict())


def test_the_backbone_is_bit_equal_from_the_first_stage_to_the_end(tmp_path: Path, tiny: SimpleNamespace) -> None:
    run = tiny.run(tiny.tasks(tmp_path / "data"), tmp_path / "run")
    states: list[dict] = []

    def keep() -> None:
        state = run.network.state_dict()
        states.append(tiny.copy_of({key: value for key, value in state.items() if ".stem." in key or ".block." in key}))

    for event in (ContinualEvents.RUN_STARTED, ContinualEvents.STAGE_COMPLETED):
        run.trainer.add_event_handler(event, keep)
    run.trainer.run()
    assert len(states) == 5
    untrained, first, *later = states
    assert tiny.changed_keys(untrained, first) == untrained.keys()
    for state in later:
        assert not tiny.changed_keys(first, state)
