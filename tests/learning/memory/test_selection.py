"""Which images of a class are kept, against plain loops on random features."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from scripts.learning.memory import SELECTIONS, select
from scripts.utils.errors import UserError


def unit_vectors(features: Tensor) -> list[list[float]]:
    rows = features.double().tolist()
    return [[value / math.sqrt(sum(v * v for v in row)) for value in row] for row in rows]


def mean(rows: list[list[float]]) -> list[float]:
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def plain_herding(features: Tensor, count: int) -> list[int]:
    """iCaRL's algorithm 4, word by word."""
    rows = unit_vectors(features)
    target, chosen = mean(rows), []
    for _ in range(min(count, len(rows))):
        rest = [index for index in range(len(rows)) if index not in chosen]
        chosen.append(min(rest, key=lambda i: math.dist(target, mean([rows[j] for j in [*chosen, i]]))))
    return chosen


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("images", "count"), [(1, 1), (3, 5), (17, 6), (30, 30)])
def test_herding_is_icarls_greedy_selection(seed: int, images: int, count: int) -> None:
    torch.manual_seed(seed)
    features = torch.randn(images, 5) * torch.rand(images, 1) * 10 + 1
    order = select("herding", features, count)
    assert order == plain_herding(features, count)
    assert len(set(order)) == len(order) == min(count, images)


def test_a_shorter_herding_is_the_start_of_a_longer_one() -> None:
    features = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    longest = select("herding", features, 40)
    assert sorted(longest) == list(range(40))
    for count in range(40):
        assert select("herding", features, count) == longest[:count]


def test_herding_copes_with_equal_and_empty_features() -> None:
    assert sorted(select("herding", torch.ones(6, 3), 4)) == [0, 1, 2, 3]
    assert sorted(select("herding", torch.zeros(3, 3), 3)) == [0, 1, 2]


def test_the_length_of_a_feature_does_not_matter_to_herding() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(20, 6, generator=generator)
    longer = features * (1 + 9 * torch.rand(20, 1, generator=generator))
    assert select("herding", features, 9) == select("herding", longer, 9)


def test_closest_to_mean_sorts_by_distance() -> None:
    features = torch.randn(25, 4, generator=torch.Generator().manual_seed(0)) + 1
    rows = unit_vectors(features)
    expected = sorted(range(25), key=lambda index: math.dist(rows[index], mean(rows)))
    assert select("closest_to_mean", features, 10) == expected[:10]
    assert select("closest_to_mean", features, 10) != select("herding", features, 10)


def test_random_depends_on_torchs_seed_alone() -> None:
    def chosen(seed: int, features: Tensor) -> list[int]:
        torch.manual_seed(seed)
        return select("random", features, 8)

    assert chosen(1, torch.zeros(30, 2)) == chosen(1, torch.randn(30, 2))
    assert chosen(1, torch.zeros(30, 2)) != chosen(2, torch.zeros(30, 2))
    assert len(set(chosen(1, torch.zeros(30, 2)))) == 8


@pytest.mark.parametrize("name", list(SELECTIONS))
def test_no_more_is_kept_than_there_is_or_than_is_asked(name: str) -> None:
    assert select(name, torch.randn(5, 3), 0) == []
    assert sorted(select(name, torch.randn(5, 3), 99)) == [0, 1, 2, 3, 4]


def test_an_unknown_selection_is_refused_with_the_choice() -> None:
    with pytest.raises(UserError, match="unknown selection 'best': choose one of herding, random, closest_to_mean"):
        select("best", torch.zeros(1, 1), 1)
