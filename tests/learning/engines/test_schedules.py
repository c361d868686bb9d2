"""Schedules that fit any number of epochs, against plain formulas."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from scripts.learning.engines import cosine, cosine_to_the_last, fractional_milestones


def rates(make: Callable[[Optimizer], LRScheduler], epochs: int, rate: float = 0.3) -> list[float]:
    """The rate of each epoch, and the one after the last."""
    optimizer = SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    schedule, found = make(optimizer), []
    for _ in range(epochs):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return [*found, optimizer.param_groups[0]["lr"]]


@pytest.mark.parametrize("epochs", [3, 6, 12, 100, 200])
@pytest.mark.parametrize("fractions", [[0.35, 0.65, 0.85], [0.55, 0.8], []])
@pytest.mark.parametrize("gamma", [0.1, 0.5])
def test_the_rate_falls_at_fractions_of_the_epochs(epochs: int, fractions: list[float], gamma: float) -> None:
    found = rates(lambda optimizer: fractional_milestones(optimizer, epochs, fractions, gamma), epochs)
    for epoch, rate in enumerate(found):
        passed = sum(round(fraction * epochs) <= epoch for fraction in fractions)
        assert rate == pytest.approx(0.3 * gamma**passed)


def test_the_published_milestones_come_out() -> None:
    found = rates(lambda optimizer: fractional_milestones(optimizer, 200, [0.35, 0.65, 0.85]), 200)
    falls = [epoch for epoch in range(1, 201) if found[epoch] < found[epoch - 1] * 0.99]
    assert falls == [70, 130, 170]


@pytest.mark.parametrize("epochs", [1, 5, 12])
def test_the_cosine_falls_to_zero(epochs: int) -> None:
    found = rates(lambda optimizer: cosine(optimizer, epochs), epochs)
    expected = [0.3 * (1 + math.cos(math.pi * epoch / epochs)) / 2 for epoch in range(epochs + 1)]
    assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("epochs", [1, 5, 20])
def test_the_other_cosine_leaves_a_64th_to_the_last_epoch(epochs: int) -> None:
    found = rates(lambda optimizer: cosine_to_the_last(optimizer, epochs), epochs)[:epochs]
    expected = [0.3 * math.cos(99 * math.pi * epoch / (200 * max(1, epochs - 1))) for epoch in range(epochs)]
    assert found == pytest.approx(expected)
    assert epochs == 1 or found[-1] == pytest.approx(0.3 / 64, rel=0.01)
