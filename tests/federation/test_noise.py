"""Noise is as large as the accountant says, and no image counts for more than the clip allows."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from scripts.federation.noise import Noise, asked_noise, nearest_positive
from scripts.utils.errors import UserError


def test_one_image_moves_the_sums_by_at_most_the_sensitivity(fed: SimpleNamespace) -> None:
    """What one image changes, each number in units of its deviation, is 1 over the accountant's multiplier at most."""
    noise, scale = Noise(1.0, 1e-5, 2.0), torch.tensor([1e3] * fed.width + [1.0], dtype=torch.double)
    x = noise.clipped(torch.cat([fed.vectors(50, 0) * scale, fed.vectors(50, 1)]))
    assert torch.equal(x[:, -1], torch.ones(100, dtype=torch.double))
    moved = [(2 * row[:, None] * row / noise.deviations(fed.width + 1, 2)).triu().norm() for row in x]
    assert float(max(moved)) == pytest.approx(1 / noise.multiplier())


def test_the_deviation_grows_as_epsilon_shrinks() -> None:
    deviations = [Noise(epsilon, 1e-5, 1.0).multiplier() for epsilon in (8.0, 1.0, 0.5)]
    assert deviations == sorted(deviations)
    classical = math.sqrt(2 * math.log(1.25 / 1e-5)) / 0.5  # Dwork and Roth (2014), theorem A.1
    assert 0.6 * classical < deviations[-1] < 1.1 * classical


def test_noise_has_that_deviation() -> None:
    noise, nothing = Noise(2.0, 1e-5, 3.0), torch.zeros(200, 200, dtype=torch.double)
    drawn = noise.added(nothing, 2)
    assert torch.equal(drawn, drawn.T)
    assert not torch.equal(drawn, noise.added(nothing, 2))
    scaled = drawn / noise.deviations(200, 2)
    for part in (scaled.triu(1)[:-1, :-1], scaled.diagonal(), scaled[:-1, -1]):
        assert float(part[part != 0].std()) == pytest.approx(1, abs=0.2)


def test_noisy_sums_are_solved_though_they_have_negative_eigenvalues(fed: SimpleNamespace, tmp_path: Path) -> None:
    noise = Noise(1.0, 1e-5, 4.0)
    own = {"s": fed.vectors(8, 0), "t": fed.vectors(8, 1)}  # few images may leave with noise
    given = fed.give(tmp_path, "a", own, {0.1: 1.0}, hidden=noise)
    assert [one["images"] for one in given.classes] == [None, None]
    assert (given.header["candidates"], given.header["noise"]["epsilon"]) == ([], 1.0)
    matrix = torch.tensor([[1.0, 2.0], [2.0, 1.0]], dtype=torch.double)
    assert torch.allclose(torch.linalg.eigvalsh(nearest_positive(matrix)), torch.tensor([0.0, 3.0]).double(), atol=1e-9)
    assert set(fed.solved([given])) == {"s", "t"}


@pytest.mark.parametrize("numbers", [(0.0, 1e-5, 1.0), (1.0, 1.0, 1.0), (1.0, 0.0, 1.0), (1.0, 1e-5, math.inf)])
def test_numbers_that_mean_nothing_are_refused(numbers: tuple[float, float, float]) -> None:
    with pytest.raises(UserError, match="give"):
        Noise(*numbers)


def test_noise_needs_its_numbers() -> None:
    assert asked_noise(None, 1e-5, None) is None
    with pytest.raises(UserError, match="give --epsilon and --clip"):
        asked_noise(1.0, 1e-5, None)
