"""New rows of the head become as long, on average, as the old ones."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from scripts.learning.handlers import WeightAlignmentHandler


def align(network: object, first: int) -> None:
    WeightAlignmentHandler(network)(SimpleNamespace(current_task=SimpleNamespace(first=first)))  # type: ignore[arg-type]


@pytest.mark.parametrize("sizes", [[2, 2], [3, 1], [1, 1], [2, 1, 3]])
def test_mean_norms_agree_afterwards_and_nothing_else_changes(sizes: list[int], tiny: SimpleNamespace) -> None:
    network, first = tiny.network(sizes=sizes), sum(sizes[:-1])
    with torch.no_grad():
        network.head.linear.weight[first:] *= 3
    before = tiny.copy_of(network.state_dict())
    align(network, first)
    assert tiny.changed_keys(before, network.state_dict()) == {"head.linear.weight"}
    old, rows = before["head.linear.weight"], network.head.linear.weight.detach()
    assert torch.equal(rows[:first], old[:first])
    norms = rows.norm(dim=1)
    assert norms[first:].mean().item() == pytest.approx(norms[:first].mean().item(), rel=1e-5)
    scales = norms[first:] / old[first:].norm(dim=1)
    assert torch.allclose(scales, scales[:1].expand_as(scales)), "all new rows by one factor"
    assert torch.allclose(rows[first:] / scales[0], old[first:], rtol=1e-5), "directions stay"


def test_the_first_task_is_left_alone(tiny: SimpleNamespace) -> None:
    network = tiny.network(sizes=[2])
    before = tiny.copy_of(network.state_dict())
    align(network, 0)
    assert not tiny.changed_keys(before, network.state_dict())
