"""Closed forms equal what they stand for: regression solved plainly, fitted again without an image, a known map."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from scripts.model.networks.closed_form import (
    centroid_map,
    drift_map,
    leave_one_out,
    ridge,
    shrinkage_errors,
    whitening,
)
from scripts.utils.errors import UserError


def vectors(rows: int, width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, width, dtype=torch.double, generator=generator)
    return torch.cat([x, torch.ones(rows, 1, dtype=torch.double)], 1)


def test_ridge_is_the_minimum_of_the_penalised_squared_error() -> None:
    x, targets = vectors(30, 5), vectors(30, 2, seed=1)
    second, first = x.T @ x, targets.T @ x
    penalty = 0.3 * second.diagonal().mean().sqrt().square()
    stacked = torch.cat([x, penalty.sqrt() * torch.eye(6, dtype=torch.double)])
    expected = torch.linalg.lstsq(stacked, torch.cat([targets, torch.zeros(6, 3, dtype=torch.double)])).solution.T
    assert torch.allclose(ridge(second, first, 0.3), expected, atol=1e-10)


def test_singular_sums_are_refused() -> None:
    x = vectors(3, 5)
    with pytest.raises(UserError, match="the sums over features are singular: raise 'shrinkage'"):
        ridge(x.T @ x, x, 0.0)


@pytest.mark.parametrize("shrinkage", [0.01, 1.0])
def test_leaving_an_image_out_equals_fitting_without_its_views(shrinkage: float) -> None:
    images, labels = vectors(24, 7).reshape(12, 2, 8), torch.arange(12) % 3
    weights = torch.tensor([0.5, 0.2, 0.1], dtype=torch.double)

    def sums(kept: list[int]) -> tuple[Tensor, Tensor]:
        parts = [weights[labels[n]] * images[n].T @ images[n] for n in kept]
        firsts = torch.zeros(3, 8, dtype=torch.double)
        for n in kept:
            firsts[labels[n]] += weights[labels[n]] * images[n].sum(0)
        return torch.stack(parts).sum(0), firsts

    second, first = sums(list(range(12)))
    found = leave_one_out(second, first, images, one_hot(labels), weights[labels], shrinkage)
    penalty = shrinkage * second.diagonal().mean() * torch.eye(8, dtype=torch.double)
    for left in range(12):
        others, firsts = sums([n for n in range(12) if n != left])
        expected = images[left] @ torch.linalg.inv(others + penalty) @ firsts.T
        assert torch.allclose(found[left], expected, atol=1e-9)


def test_a_shrinkage_is_judged_by_left_out_images_with_classes_alike() -> None:
    images, labels = vectors(40, 30).reshape(20, 2, 31), (torch.arange(20) > 14).long()
    images[:, :, 0] += 2.0 * labels[:, None]  # a weak sign of the class among many that mean nothing
    weights = torch.tensor([1 / 30, 1 / 10], dtype=torch.double)[labels]
    x = weights[:, None, None].sqrt() * images
    second = x.flatten(0, 1).T @ x.flatten(0, 1)
    first = torch.stack([(weights[:, None] * images.sum(1))[labels == label].sum(0) for label in (0, 1)])
    candidates = (1e-4, 0.3, 30.0)

    def error(shrinkage: float) -> float:
        said = leave_one_out(second, first, images, one_hot(labels), weights, shrinkage)
        squares = (said - torch.eye(2)[labels][:, None]).square()
        return float(squares[labels == 0].mean() + squares[labels == 1].mean())

    found = shrinkage_errors(second, first, images, one_hot(labels), weights, candidates)
    classes = 2
    assert found == pytest.approx({shrinkage: classes * error(shrinkage) for shrinkage in candidates})
    assert min(found, key=found.__getitem__) == 0.3, "neither end is"


def test_the_centroid_map_shifts_every_mean_as_the_mean_of_some_images_moved() -> None:
    old, new, others = vectors(9, 4), vectors(9, 4, seed=1), vectors(5, 4, seed=2)
    moved = others @ centroid_map(old, new)
    assert torch.allclose(moved, others + (new.mean(0) - old.mean(0)))
    sums = others.T @ others, others.sum(0)  # as sums are carried
    shift = centroid_map(old, new)
    assert torch.allclose(shift.T @ sums[0] @ shift, moved.T @ moved)
    assert torch.allclose(sums[1] @ shift, moved.sum(0))


def test_a_map_of_features_that_moved_affinely_is_that_map() -> None:
    old, linear = vectors(60, 6), vectors(7, 5, seed=1)
    linear = torch.cat([linear, torch.eye(7, dtype=torch.double)[:, -1:]], 1)
    found = drift_map(old, old @ linear, 1e-12)
    assert torch.allclose(found, linear, atol=1e-8)


def test_features_that_did_not_move_stay_where_they_are() -> None:
    old = vectors(3, 6)  # fewer than features
    assert torch.equal(drift_map(old, old, 0.01), torch.eye(7, dtype=torch.double))


def test_the_constant_stays_a_constant_and_what_no_image_shows_stays() -> None:
    old = vectors(3, 6)
    old[:, 2] = 0
    found = drift_map(old, torch.cat([old[:, :-1] * 2 + 1, old[:, -1:]], 1), 0.01)
    identity = torch.eye(7, dtype=torch.double)
    assert torch.equal(found[:, -1], identity[:, -1])
    assert torch.equal(found[2], identity[2])


def test_whitened_distances_are_those_of_the_shrunken_normalised_covariance() -> None:
    x = vectors(40, 4)[:, :4] @ vectors(4, 3, seed=2)
    mean = x.mean(0)
    covariance = torch.cov(x.T, correction=0)
    diagonal, others = covariance.diagonal().mean(), covariance[~torch.eye(4, dtype=torch.bool)].mean()
    shrunken = covariance + torch.where(torch.eye(4, dtype=torch.bool), diagonal, others)
    deviations = shrunken.diagonal().sqrt()
    expected = torch.linalg.inv(shrunken / torch.outer(deviations, deviations))
    found = whitening((x.T @ x / 40)[None], mean[None], 1.0)[0]
    assert torch.allclose(found.T @ found, expected, atol=1e-6)


def test_a_class_that_does_not_vary_has_the_identity() -> None:
    mean = vectors(1, 4)
    assert torch.allclose(whitening(mean[:, :, None] * mean[:, None], mean, 1.0)[0], torch.eye(5).double(), atol=1e-4)
