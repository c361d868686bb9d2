"""Merging is a pure function on tensors; averaging is the plain mean."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from scripts.errors import UserError
from scripts.networks import make_adapter, merge


def plain_mean(states: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    mean: dict[str, Tensor] = {}
    for key in states[0]:
        if key.endswith("num_batches_tracked"):
            continue
        total = torch.zeros_like(states[0][key], dtype=torch.float64)
        for state in states:
            total = total + state[key].double()
        mean[key] = total / len(states)
    return mean


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_the_average_is_the_plain_mean_of_every_floating_entry(count: int, tiny: SimpleNamespace) -> None:
    adapters = [make_adapter("conv", 6) for _ in range(count)]
    for number, adapter in enumerate(adapters):
        tiny.randomise(adapter, number)
    states = [adapter.state_dict() for adapter in adapters]
    before = copy.deepcopy(states)
    merged, expected = merge("average", states), plain_mean(states)
    counters = {key for key in merged if key.endswith("num_batches_tracked")}
    assert merged.keys() - counters == expected.keys()
    assert {"scale", "layers.0.bias", "layers.1.running_mean", "layers.4.running_var", "layers.4.weight"} <= set(
        expected
    )
    for key, value in expected.items():
        torch.testing.assert_close(merged[key], value.float(), rtol=1e-6, atol=1e-7)
    for key in counters:
        assert merged[key].dtype == torch.int64
        assert torch.equal(merged[key], states[-1][key])
    assert all(torch.equal(old[key], new[key]) for old, new in zip(before, states, strict=True) for key in old)


def test_the_result_shares_no_memory_with_what_went_in() -> None:
    state = make_adapter("conv", 4).state_dict()
    merged = merge("average", [state])
    for value in merged.values():
        value.zero_()
    assert all(bool(state[key].any()) for key in ("scale", "layers.0.weight", "layers.1.running_var"))


def test_an_unknown_strategy_is_refused_with_the_choice() -> None:
    with pytest.raises(UserError, match="unknown merging strategy 'ties': choose one of average"):
        merge("ties", [{}])
