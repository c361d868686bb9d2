"""Merging is a pure function on state dicts: weights by a row, BatchNorm's running statistics by their own rule."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from scripts.model.networks import ROWS, MagMax, Merging, merge
from scripts.model.networks.adapters import ConvAdapter
from scripts.model.networks.merging import Statistics, pooled, recalibrate
from scripts.utils.errors import UserError


def measured(row: str, statistics: Sequence[Statistics], **options: Any) -> Merging:
    """Return a way of merging that finds these statistics."""
    return Merging(ROWS[row](), statistics=SimpleNamespace(tasks=statistics), **options)


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
    adapters = [ConvAdapter(6, 6) for _ in range(count)]
    for number, adapter in enumerate(adapters):
        tiny.randomise(adapter, number)
    states = [adapter.state_dict() for adapter in adapters]
    before = copy.deepcopy(states)
    merged, expected = merge(states), plain_mean(states)
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
    state = ConvAdapter(4, 4).state_dict()
    merged = merge([state])
    for value in merged.values():
        value.zero_()
    assert all(bool(state[key].any()) for key in ("scale", "layers.0.weight", "layers.1.running_var"))


def random_vectors(count: int = 3, shape: tuple[int, ...] = (4, 5)) -> list[Tensor]:
    generator = torch.Generator().manual_seed(count)
    return [torch.randn(shape, generator=generator, dtype=torch.double) for _ in range(count)]


def statistics_of(states: list[dict[str, Tensor]], count: float = 3) -> list[dict[str, dict[str, Tensor]]]:
    """Return statistics as they are measured: a Gram matrix for convolutions alone."""
    generator = torch.Generator().manual_seed(0)

    def gram(weight: Tensor, transposed: bool) -> Tensor:
        single = list(weight.shape)
        single[1 if transposed else 0] = 1
        x = torch.randn(2 * math.prod(single), math.prod(single), generator=generator)
        return (x.T @ x).reshape(*single, *single)

    return [
        {
            "samples": dict.fromkeys(state, torch.tensor(count + number)),
            "fisher": {key: torch.rand(value.shape, generator=generator) for key, value in state.items()},
            "gram": {key: gram(value, key == "layers.3.weight") for key, value in state.items() if value.dim() == 4},
        }
        for number, state in enumerate(states)
    ]


@pytest.mark.parametrize("name", [name for name in ROWS if name != "dare"])
def test_merging_equal_adapters_changes_nothing(name: str, tiny: SimpleNamespace) -> None:
    adapter = ConvAdapter(3, 3)
    tiny.randomise(adapter, 1)
    states = [adapter.state_dict()] * 3
    for batchnorm in ("average", "pooled", "recalibrated"):
        merged = merge(states, measured(name, statistics_of(states), batchnorm=batchnorm))
        for key, value in merged.items():
            torch.testing.assert_close(value, states[0][key], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", list(ROWS))
def test_no_strategy_but_the_batchnorm_rule_touches_running_statistics(name: str, tiny: SimpleNamespace) -> None:
    adapters = [ConvAdapter(3, 3) for _ in range(3)]
    for number, adapter in enumerate(adapters):
        tiny.randomise(adapter, number)
    states = [adapter.state_dict() for adapter in adapters]
    merged, mean = merge(states, measured(name, statistics_of(states))), merge(states)
    kept = [key for key in merged if "running_" in key or key.endswith("num_batches_tracked")]
    assert len(kept) == 6
    for key in kept:
        assert torch.equal(merged[key], mean[key])
    assert all(torch.isfinite(value).all() for value in merged.values())


def test_pooled_statistics_are_those_of_all_data_together() -> None:
    data = [vector * (3 - number) + number for number, vector in enumerate(random_vectors(3, (40, 6)))]
    data = [values[: 10 * (number + 2)] for number, values in enumerate(data)]
    means = [values.mean(0) for values in data]
    variances = [values.var(0, correction=0) for values in data]
    mean, variance = pooled(means, variances, [torch.tensor(float(len(values))) for values in data])
    torch.testing.assert_close(mean, torch.cat(data).mean(0))
    torch.testing.assert_close(variance, torch.cat(data).var(0, correction=0))


def test_running_statistics_are_pooled_by_images_whatever_the_strategy(tiny: SimpleNamespace) -> None:
    adapters = [ConvAdapter(3, 3) for _ in range(2)]
    for number, adapter in enumerate(adapters):
        tiny.randomise(adapter, number)
    states = [adapter.state_dict() for adapter in adapters]
    statistics = statistics_of(states)
    merged = merge(states, measured("magmax", statistics, batchnorm="pooled"))
    for layer in (1, 4):
        names = f"layers.{layer}.running_mean", f"layers.{layer}.running_var"
        means, variances = ([state[name] for state in states] for name in names)
        expected = pooled(means, variances, [torch.tensor(3.0), torch.tensor(4.0)])
        for name, value in zip(names, expected, strict=True):
            torch.testing.assert_close(merged[name], value)


def test_recalibrated_statistics_are_those_of_the_images(tiny: SimpleNamespace) -> None:
    torch.manual_seed(0)
    adapter = ConvAdapter(3, 3)
    before = copy.deepcopy(adapter.state_dict())
    batches = [torch.randn(4, 3, 6, 6) * 2 + 1 for _ in range(3)]
    recalibrate(adapter, adapter, batches)
    maps = [adapter.layers[0](batch) for batch in batches]
    after = adapter.state_dict()
    torch.testing.assert_close(after["layers.1.running_mean"], torch.cat(maps).mean((0, 2, 3)))
    variances = [values.transpose(0, 1).flatten(1).var(1) for values in maps]
    torch.testing.assert_close(after["layers.1.running_var"], sum(variances) / 3)
    assert {key for key in tiny.changed_keys(before, after) if "running" not in key and "tracked" not in key} == set()
    norms = [module for module in adapter.modules() if isinstance(module, nn.BatchNorm2d)]
    assert [(layer.momentum, layer.training) for layer in norms] == [(0.1, False)] * 2


def test_a_relative_strategy_starts_from_the_base() -> None:
    base, *vectors = random_vectors(4)
    states = [{"weight": base + vector} for vector in vectors]
    found = merge(states, Merging(MagMax()), {"weight": base})["weight"]
    torch.testing.assert_close(found, base + MagMax()(vectors))
    own = merge(states, Merging(MagMax()))["weight"]  # relative to the first
    torch.testing.assert_close(own, states[0]["weight"] + MagMax()([vector - vectors[0] for vector in vectors]))


@pytest.mark.parametrize("name", ["average", "running_mean", "samples", "fisher"])
def test_other_strategies_know_no_base(name: str) -> None:
    base, *vectors = random_vectors(4)
    states = [{"weight": vector} for vector in vectors]
    statistics = [{kind: {"weight": vector.abs()} for kind in ("samples", "fisher")} for vector in vectors]
    found = merge(states, measured(name, statistics), {"weight": base})["weight"]
    assert torch.equal(found, merge(states, measured(name, statistics))["weight"])


@pytest.mark.parametrize(
    ("strategy", "batchnorm", "kinds"),
    [
        ("average", "average", []),
        ("average", "pooled", ["samples"]),
        ("samples", "pooled", ["samples"]),
        ("fisher", "pooled", ["fisher", "samples"]),
        ("regmean", "recalibrated", ["gram"]),
    ],
)
def test_what_must_be_measured_follows_from_the_choices(strategy: str, batchnorm: str, kinds: list[str]) -> None:
    assert Merging(ROWS[strategy](), batchnorm=batchnorm).needs() == kinds


def test_a_statistic_that_was_not_measured_is_named() -> None:
    states = [{"weight": vector} for vector in random_vectors(2)]
    found = [{"samples": {"weight": torch.tensor(1.0)}}, {}]
    with pytest.raises(UserError, match="by 'BySamples' with BatchNorm 'average' needs 'samples' of every task"):
        merge(states, measured("samples", found))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base": "last"}, "unknown 'last': choose one of first, start \\(key 'merging#base'\\)"),
        ({"batchnorm": "none"}, "choose one of average, pooled, recalibrated \\(key 'merging#batchnorm'\\)"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Merging(**options)  # type: ignore[arg-type]
