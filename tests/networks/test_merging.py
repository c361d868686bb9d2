"""Merging is a pure function on tensors; each strategy equals the plainest loop, and has its paper's properties."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from scripts.errors import UserError
from scripts.networks import STRATEGIES, MergingOptions, make_adapter, merge, needed_statistics
from scripts.networks.merging import (
    Statistics,
    dare,
    magmax,
    pooled,
    recalibrate,
    regmean,
    slerp,
    slerp_in_order,
    ties,
    trim,
    weighted_average,
)


def measured(strategy: str, statistics: Sequence[Statistics], **options: Any) -> MergingOptions:
    """Return a way of merging that finds these statistics."""
    return MergingOptions(strategy, statistics=SimpleNamespace(tasks=statistics), **options)


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
    state = make_adapter("conv", 4).state_dict()
    merged = merge([state])
    for value in merged.values():
        value.zero_()
    assert all(bool(state[key].any()) for key in ("scale", "layers.0.weight", "layers.1.running_var"))


def test_an_unknown_strategy_is_refused_with_the_choice() -> None:
    with pytest.raises(UserError, match="unknown merging strategy 'no_such': choose one of average, running_mean, "):
        MergingOptions("no_such")


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


@pytest.mark.parametrize("name", [name for name in STRATEGIES if name != "dare"])
def test_merging_equal_adapters_changes_nothing(name: str, tiny: SimpleNamespace) -> None:
    adapter = make_adapter("conv", 3)
    tiny.randomise(adapter, 1)
    states = [adapter.state_dict()] * 3
    for batchnorm in ("average", "pooled", "recalibrated"):
        merged = merge(states, measured(name, statistics_of(states), batchnorm=batchnorm))
        for key, value in merged.items():
            torch.testing.assert_close(value, states[0][key], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", list(STRATEGIES))
def test_no_strategy_but_the_batchnorm_rule_touches_running_statistics(name: str, tiny: SimpleNamespace) -> None:
    adapters = [make_adapter("conv", 3) for _ in range(3)]
    for number, adapter in enumerate(adapters):
        tiny.randomise(adapter, number)
    states = [adapter.state_dict() for adapter in adapters]
    merged, mean = merge(states, measured(name, statistics_of(states))), merge(states)
    kept = [key for key in merged if "running_" in key or key.endswith("num_batches_tracked")]
    assert len(kept) == 6
    for key in kept:
        assert torch.equal(merged[key], mean[key])
    assert all(torch.isfinite(value).all() for value in merged.values())


def test_the_weighted_average_weighs_each_number_by_its_own() -> None:
    vectors, weights = random_vectors(), [vector.abs() for vector in random_vectors(4)[:3]]
    for weight in weights:
        weight[0, 0] = 0  # no image says anything of it
    found = weighted_average(vectors, weights)
    for row in range(4):
        for column in range(5):
            values = [float(vector[row, column]) for vector in vectors]
            scales = [float(weight[row, column]) for weight in weights] if row + column else [1.0] * 3
            expected = sum(v * w for v, w in zip(values, scales, strict=True)) / sum(scales)
            assert float(found[row, column]) == pytest.approx(expected, rel=1e-12)


def test_by_samples_a_task_with_three_times_the_images_counts_three_times() -> None:
    first, second = random_vectors(2)
    found = weighted_average([first, second], [torch.tensor(3.0), torch.tensor(1.0)])
    torch.testing.assert_close(found, (first + first + first + second) / 4)


def test_ties_elects_each_sign_by_hand() -> None:
    vectors = [torch.tensor([3.0, -1.0, 2.0, 0.1]), torch.tensor([-1.0, -2.0, -2.0, 0.1]), torch.tensor([2.0, 5, 0, 0])]
    # sums 4, 2, 0, 0.2: of the first entry 3 and 2 agree, of the second 5 alone, of the third nobody is elected
    torch.testing.assert_close(ties(vectors, 1.0), torch.tensor([2.5, 5.0, 0.0, 0.1]))
    # a quarter of each: 3 alone, the earlier of -2 and -2 or none, 5 alone
    torch.testing.assert_close(ties([vectors[0], vectors[2]], 0.25), torch.tensor([3.0, 5.0, 0.0, 0.0]))


def test_ties_equals_the_plainest_loop() -> None:
    vectors = [trim(vector, 0.5) for vector in random_vectors()]
    found = ties(random_vectors(), 0.5).flatten()
    for position in range(20):
        values = [float(vector.flatten()[position]) for vector in vectors]
        total = sum(values)
        agreeing = [value for value in values if value * total > 0]
        expected = sum(agreeing) / len(agreeing) if agreeing else 0
        assert float(found[position]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("density", "kept"), [(0.2, 2), (0.21, 3), (1.0, 10), (0.01, 1)])
def test_trimming_keeps_the_largest_magnitudes(density: float, kept: int) -> None:
    vector = torch.tensor([1.0, -10, 2, -9, 3, -8, 4, -7, 5, -6])
    found = trim(vector, density)
    assert sorted(found[found != 0].abs().tolist(), reverse=True) == [10.0 - rank for rank in range(kept)]
    assert torch.equal(found[found != 0], vector[found != 0])
    assert trim(torch.tensor(0.5), density) == 0.5, "a single number is always kept"


def test_dare_is_unbiased_and_seeded() -> None:
    vectors = random_vectors(2, (3, 3))
    generator = torch.Generator().manual_seed(0)
    draws = dare([vector.expand(4000, 3, 3) for vector in vectors], 0.5, generator)
    # a draw's deviation is at most |v| sqrt(2) / 2: the mean of 4000 is within 5 deviations of it
    torch.testing.assert_close(draws.mean(0), (vectors[0] + vectors[1]) / 2, atol=0.2, rtol=0)
    assert len(draws.unique(dim=0)) > 100
    once, again = (dare(vectors, 0.5, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(once, again)
    torch.testing.assert_close(dare(vectors, 1.0, generator), (vectors[0] + vectors[1]) / 2)


def test_dare_keeps_numbers_divided_by_the_density_or_drops_them() -> None:
    (vector,) = random_vectors(1, (50,))
    found = dare([vector], 0.2, torch.Generator().manual_seed(0))
    kept = found != 0
    assert 0 < int(kept.sum()) < 50
    torch.testing.assert_close(found[kept], vector[kept] / 0.2)


def test_magmax_takes_the_largest_magnitude_with_its_sign() -> None:
    vectors = random_vectors()
    found = magmax(vectors).flatten()
    for position in range(20):
        assert float(found[position]) == max((float(vector.flatten()[position]) for vector in vectors), key=abs)


def test_slerp_keeps_the_length_of_unit_vectors_and_divides_the_angle() -> None:
    first, second = (vector / vector.norm() for vector in random_vectors(2))
    whole = torch.acos((first * second).sum())
    for share in (0.0, 0.25, 0.5, 1.0):
        found = slerp(first, second, share)
        assert float(found.norm()) == pytest.approx(1, abs=1e-9)
        assert float(torch.acos((first * found).sum().clamp(-1, 1))) == pytest.approx(share * float(whole), abs=1e-6)


def test_slerp_of_vectors_without_an_arc_between_them_is_linear() -> None:
    (vector,) = random_vectors(1)
    for other in (2 * vector, -vector, torch.zeros_like(vector)):
        torch.testing.assert_close(slerp(vector, other, 0.25), 0.75 * vector + 0.25 * other)
        torch.testing.assert_close(slerp(other, vector, 0.25), 0.75 * other + 0.25 * vector)


def test_slerp_folds_in_oldest_first() -> None:
    one, two, three = random_vectors()
    expected = slerp(slerp(one, two, 1 / 2), three, 1 / 3)
    torch.testing.assert_close(slerp_in_order([one, two, three]), expected)


def test_regmean_of_linear_layers_is_least_squares_on_all_inputs() -> None:
    weights = random_vectors(3, (4, 5))  # 5 inputs, 4 outputs
    inputs = random_vectors(3, (30, 5))
    grams = [(x.T @ x).reshape(1, 5, 1, 5) for x in inputs]
    outputs = torch.cat([x @ weight.T for x, weight in zip(inputs, weights, strict=True)])
    expected = torch.linalg.lstsq(torch.cat(inputs), outputs).solution.T
    torch.testing.assert_close(regmean(weights, grams), expected, atol=1e-5, rtol=0)


def test_regmean_averages_what_no_input_speaks_of() -> None:
    weights = random_vectors(2, (4, 5))
    inputs = random_vectors(2, (30, 5))
    for x in inputs:
        x[:, 2] = 0  # a dead channel
    found = regmean(weights, [(x.T @ x).reshape(1, 5, 1, 5) for x in inputs])
    torch.testing.assert_close(found[:, 2], (weights[0][:, 2] + weights[1][:, 2]) / 2)
    silent = regmean(weights, [torch.zeros(1, 5, 1, 5)] * 2)
    torch.testing.assert_close(silent, (weights[0] + weights[1]) / 2)


def test_pooled_statistics_are_those_of_all_data_together() -> None:
    data = [vector * (3 - number) + number for number, vector in enumerate(random_vectors(3, (40, 6)))]
    data = [values[: 10 * (number + 2)] for number, values in enumerate(data)]
    means = [values.mean(0) for values in data]
    variances = [values.var(0, correction=0) for values in data]
    mean, variance = pooled(means, variances, [torch.tensor(float(len(values))) for values in data])
    torch.testing.assert_close(mean, torch.cat(data).mean(0))
    torch.testing.assert_close(variance, torch.cat(data).var(0, correction=0))


def test_running_statistics_are_pooled_by_images_whatever_the_strategy(tiny: SimpleNamespace) -> None:
    adapters = [make_adapter("conv", 3) for _ in range(2)]
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
    adapter = make_adapter("conv", 3)
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
    found = merge(states, MergingOptions("magmax"), {"weight": base})["weight"]
    torch.testing.assert_close(found, base + magmax(vectors))
    own = merge(states, MergingOptions("magmax"))["weight"]  # relative to the first
    torch.testing.assert_close(own, states[0]["weight"] + magmax([vector - vectors[0] for vector in vectors]))


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
    assert needed_statistics(strategy, batchnorm) == kinds


def test_a_statistic_that_was_not_measured_is_named() -> None:
    states = [{"weight": vector} for vector in random_vectors(2)]
    found = [{"samples": {"weight": torch.tensor(1.0)}}, {}]
    with pytest.raises(UserError, match="merging by 'samples' with BatchNorm 'average' needs 'samples' of every task"):
        merge(states, measured("samples", found))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base": "last"}, "unknown 'last': choose one of first, start \\(key 'merging#base'\\)"),
        ({"batchnorm": "none"}, "choose one of average, pooled, recalibrated \\(key 'merging#batchnorm'\\)"),
        ({"density": 0.0}, "more than 0 and at most 1 \\(key 'merging#density'\\)"),
        ({"density": 1.5}, "a density of 1.5"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        MergingOptions(**options)  # type: ignore[arg-type]
