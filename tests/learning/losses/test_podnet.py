"""PODNet's losses equal their equations, computed a number at a time."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from scripts.learning.losses import (
    less_forget_constraint,
    nca_loss,
    podnet_loss,
    pooled_distillation,
)
from scripts.model.networks import Outputs


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def with_logits(logits: Tensor, classes: tuple[int, ...]) -> Outputs:
    return Outputs(logits, noise(len(logits), 1, 4), [], classes)


def plain_components(logits: Tensor, labels: list[int], margin: float) -> float:
    terms = []
    for row, label in zip(logits.tolist(), labels, strict=True):
        others = sum(math.exp(value) for position, value in enumerate(row) if position != label)
        terms.append(max(0.0, -math.log(math.exp(row[label] - margin) / others)))
    return sum(terms) / len(terms)


@pytest.mark.parametrize("count", [2, 5])
def test_the_own_class_is_a_margin_nearer_than_the_others_together(count: int) -> None:
    logits, labels = noise(9, count), torch.arange(9) % count
    found = nca_loss(with_logits(logits, (count,)), labels, 0.6).item()
    assert found == pytest.approx(plain_components(logits, labels.tolist(), 0.6), rel=1e-5)
    sure = 20.0 * torch.eye(count)[labels]
    assert nca_loss(with_logits(sure, (count,)), labels, 0.6).item() == 0


def test_a_single_class_has_nothing_to_learn() -> None:
    logits = noise(3, 1).requires_grad_()
    nca_loss(with_logits(logits, (1,)), torch.zeros(3, dtype=torch.long), 0.6).backward()
    assert logits.grad is not None
    assert not logits.grad.any()


def plain_pooling(volume: Tensor) -> list[float]:
    """All sums of squares along one axis of one image's map [c, ...], scaled to length 1."""
    sums = [row for axis in range(1, volume.dim()) for row in (volume**2).sum(axis).flatten().tolist()]
    return [value / math.hypot(*sums) for value in sums]


@pytest.mark.parametrize("sides", [(4, 3), (2, 3, 4)])
def test_maps_are_compared_after_pooling_along_each_axis(sides: tuple[int, ...]) -> None:
    own = [noise(2, 3, *sides), noise(2, 5, *sides, seed=1)]
    old = [noise(2, 3, *sides, seed=2), noise(2, 5, *sides, seed=3)]
    distances = [
        math.dist(plain_pooling(mine[image]), plain_pooling(theirs[image]))
        for mine, theirs in zip(own, old, strict=True)
        for image in range(2)
    ]
    assert pooled_distillation(own, old).item() == pytest.approx(sum(distances) / 4, rel=1e-5)


def test_equal_maps_cost_nothing_and_have_a_gradient_of_zero() -> None:
    own = noise(2, 3, 4, 4).requires_grad_()
    loss = pooled_distillation([own], [own.detach()])
    loss.backward()
    assert loss.item() == 0
    assert own.grad is not None
    assert not own.grad.any()


def test_the_whole_loss_equals_its_equation_and_starts_without_distillation() -> None:
    outputs, labels = with_logits(noise(7, 5), (3, 2)), torch.arange(7) % 5
    components = nca_loss(outputs, labels, 0.6)
    assert torch.equal(podnet_loss(outputs, labels, 0.6, spatial=5, flat=1), components)
    outputs.maps = [noise(7, 3, 4, 4)]
    outputs.teacher = Outputs(noise(7, 3), noise(7, 1, 4, seed=1), [noise(7, 3, 4, 4, seed=2)], (3,))
    kept = 5 * pooled_distillation(outputs.maps, outputs.teacher.maps) + 2 * less_forget_constraint(outputs)
    found = podnet_loss(outputs, labels, 0.6, spatial=5, flat=2)
    torch.testing.assert_close(found, components + math.sqrt(5 / 2) * kept)
