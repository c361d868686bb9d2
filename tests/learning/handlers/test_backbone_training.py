"""An untrained backbone learns the first task whole; afterwards it never changes again."""

from __future__ import annotations

from types import SimpleNamespace

from ignite.engine import Engine

from scripts.learning.engines import ContinualEvents
from scripts.learning.handlers import BackboneTrainingHandler


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


def test_the_backbone_is_bit_equal_from_the_first_stage_to_the_end(
    finished: SimpleNamespace, tiny: SimpleNamespace
) -> None:
    names = [stage.name for stage in finished.stages]
    assert names == ["backbone_training", "adapter_tuning", "adapter_tuning", "balanced_finetuning"]
    first, *later = (stage.backbone for stage in finished.stages)
    untrained = tiny.network().state_dict()
    assert tiny.changed_keys({key: untrained[key] for key in first}, first) == first.keys()
    for state in later:
        assert not tiny.changed_keys(first, state)
