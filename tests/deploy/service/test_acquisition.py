"""Which image is labelled next: equal to the plainest way of writing it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from scripts.deploy.service.acquisition import UNCERTAINTY, coverage, entropy, least_confidence, margin

RNG = np.random.default_rng(0)
PROBABILITIES = RNG.dirichlet(np.ones(5), 7)


def test_uncertainty_is_what_its_name_says() -> None:
    rows = [sorted(map(float, row)) for row in PROBABILITIES]
    assert least_confidence(PROBABILITIES) == pytest.approx([1 - row[-1] for row in rows])
    assert margin(PROBABILITIES) == pytest.approx([1 - (row[-1] - row[-2]) for row in rows])
    assert entropy(PROBABILITIES) == pytest.approx([-sum(p * math.log(p) for p in row) for row in rows])


@pytest.mark.parametrize("name", UNCERTAINTY)
def test_a_sure_image_comes_last_and_an_even_one_first(name: str) -> None:
    rows = np.array([[1.0, 0.0, 0.0], [0.5, 0.3, 0.2], [1 / 3, 1 / 3, 1 / 3]])
    wanted = UNCERTAINTY[name](rows)
    assert np.isfinite(wanted).all()
    assert list(wanted.argsort()) == [0, 1, 2]


@pytest.mark.parametrize("name", UNCERTAINTY)
def test_a_model_of_one_class_is_never_uncertain(name: str) -> None:
    assert UNCERTAINTY[name](np.ones((3, 1))) == pytest.approx([0, 0, 0])


def test_coverage_is_the_distance_to_the_nearest_centre() -> None:
    features, labelled = RNG.normal(size=(6, 4)), RNG.normal(size=(3, 4))
    expected = [min(math.dist(row, centre) for centre in labelled) for row in features]
    assert coverage(features, labelled) == pytest.approx(expected)


def test_covering_again_and_again_is_the_greedy_k_centre_within_twice_the_best_radius() -> None:
    features = RNG.normal(size=(12, 2))
    centres = [int(coverage(features, features[:0]).argmax())]
    while len(centres) < 3:
        centres.append(int(coverage(features, features[centres]).argmax()))
    assert len(set(centres)) == 3

    def radius(chosen: list[int]) -> float:
        return float(coverage(features, features[chosen]).max())

    best = min(radius([a, b, c]) for a in range(12) for b in range(a) for c in range(b))
    assert radius(centres) <= 2 * best
