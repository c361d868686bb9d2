"""EWC's penalty: its gradient, what it holds, and what it leaves free."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from scripts.learning.engines import ContinualEvents, ContinualTrainer
from scripts.learning.features import FeatureExtractor
from scripts.learning.handlers import ElasticWeightConsolidationHandler
from scripts.learning.tasks import Task
from scripts.utils.errors import UserError


@pytest.fixture
def tasks(tmp_path: Path, tiny: SimpleNamespace) -> list[Task]:
    found: list[Task] = tiny.tasks(tmp_path / "data")
    return found


def make(network: Any, tiny: SimpleNamespace, strength: float = 2.0) -> ElasticWeightConsolidationHandler:
    features = FeatureExtractor(network, tiny.transform(), 4)
    return ElasticWeightConsolidationHandler(network, features, strength)


def train(network: Any, tasks: list[Task], tiny: SimpleNamespace, *handlers: Any) -> ContinualTrainer:
    trainer: ContinualTrainer = tiny.trainer(network, tasks, [tiny.stage(trains=["backbone", "head"])], handlers)
    trainer.run()
    return trainer


def test_the_gradient_is_that_of_the_penalty(tasks: list[Task], tiny: SimpleNamespace) -> None:
    network = tiny.network(adapter=None)
    handler = make(network, tiny)
    train(network, tasks[:1], tiny, handler)
    before = {name: anchor.clone() for name, anchor in handler.anchors.items()}
    network.grow(2)
    network.train_only(["backbone", "head"])
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1
    trained = {name: value for name, value in network.named_parameters() if value.requires_grad}
    old = {name: value[: len(before[name])] for name, value in trained.items()}
    penalty = sum((handler.importance[name] * (old[name] - before[name]).square()).sum() for name in old)
    expected = torch.autograd.grad(2.0 / 2 * penalty, list(trained.values()))
    for value in trained.values():
        value.grad = torch.zeros_like(value)
    handler()
    for value, gradient in zip(trained.values(), expected, strict=True):
        torch.testing.assert_close(value.grad, gradient)
    assert not trained["head.linear.weight"].grad[2:].any(), "new rows are free"


def test_importances_add_up_over_tasks_and_places_are_those_of_the_last(
    tasks: list[Task], tiny: SimpleNamespace
) -> None:
    network = tiny.network(adapter=None)
    handler = make(network, tiny, 1e-6)
    after: list[Any] = []
    trainer = tiny.trainer(network, tasks, [tiny.stage(trains=["backbone", "head"])], [handler])
    trainer.add_event_handler(ContinualEvents.TASK_COMPLETED, lambda: after.append(tiny.copy_of(handler.importance)))
    trainer.run()
    first, second = after
    assert all((second[name][: len(value)] >= value).all() for name, value in first.items())
    assert second["head.linear.weight"].shape[0] == 4
    weights = dict(network.named_parameters())
    assert all(torch.equal(anchor, weights[name]) for name, anchor in handler.anchors.items())
    assert handler.kept_bytes() == 2 * sum(value.nbytes for value in handler.anchors.values())


def test_a_strong_penalty_holds_what_matters(tasks: list[Task], tiny: SimpleNamespace) -> None:
    moved = []
    for strength in (1e-9, 1.0):
        network = tiny.network(adapter=None)
        handler = make(network, tiny, strength)
        train(network, tasks[:1], tiny, handler)
        start, weights = tiny.copy_of(handler.anchors), tiny.copy_of(handler.importance)
        later = tiny.trainer(network, tasks, [tiny.stage(trains=["backbone", "head"])], [handler])
        later.tasks_completed = 1
        later.run()
        now = dict(network.named_parameters())
        moved.append(sum(float((weights[n] * (now[n][: len(w)] - w).square()).sum()) for n, w in start.items()))
    assert moved[1] < moved[0]


def test_a_strength_that_is_not_above_zero_is_refused(tiny: SimpleNamespace) -> None:
    with pytest.raises(UserError, match="EWC with a strength of 0: use a number above 0"):
        make(tiny.network(adapter=None), tiny, 0)
