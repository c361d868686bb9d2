"""A gradient that is too long keeps its direction, and one that is short enough stays."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ignite.engine import Events
from torch import nn

from scripts.learning.handlers import GradientClippingHandler
from scripts.utils.errors import UserError


@pytest.mark.parametrize(("length", "expected"), [(10.0, 1.0), (0.5, 0.5)])
def test_a_gradient_is_shortened_to_the_norm(length: float, expected: float) -> None:
    network = nn.ModuleList([nn.Linear(3, 2), nn.Linear(2, 1)])
    network[1].requires_grad_(False)
    slopes = [torch.randn_like(value) for value in network[0].parameters()]
    whole = torch.cat([slope.flatten() for slope in slopes]).norm()
    for value, slope in zip(network[0].parameters(), slopes, strict=True):
        value.grad = slope * length / whole
    engine: Any = SimpleNamespace(continual_network=network)
    GradientClippingHandler(1.0)(engine)
    for value, slope in zip(network[0].parameters(), slopes, strict=True):
        torch.testing.assert_close(value.grad, slope * expected / whole, rtol=1e-4, atol=1e-6)


def test_each_step_of_a_run_is_short(tiny: SimpleNamespace, tmp_path: Any) -> None:
    network = tiny.network()
    stage = tiny.stage(optimizer=lambda values: torch.optim.SGD(values, lr=1.0), epochs=2)
    trainer = tiny.trainer(network, tiny.tasks(tmp_path, (2,)), [stage], [GradientClippingHandler(1e-3)])
    before: list[torch.Tensor] = []
    moves: list[float] = []

    def numbers() -> torch.Tensor:
        return torch.cat([value.detach().flatten() for value in network.head.parameters()]).clone()

    trainer.add_event_handler(Events.ITERATION_STARTED, lambda: before.append(numbers()))
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: moves.append(float((numbers() - before[-1]).norm())))
    trainer.run()
    assert moves == pytest.approx([1e-3] * len(moves), rel=1e-2) and len(moves) > 2


@pytest.mark.parametrize("norm", [0, -1.0])
def test_a_norm_that_is_not_above_zero_is_refused(norm: float) -> None:
    with pytest.raises(UserError, match="gradients cannot be clipped to a norm of"):
        GradientClippingHandler(norm)
