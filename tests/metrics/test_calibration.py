"""The calibration error and the temperature against the plainest references."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import softmax

from scripts.metrics.calibration import (
    calibration_error,
    error_interval,
    errors_by_chance,
    fit_temperature,
    probabilities_at,
    smoothed_loss,
)

Numbers = NDArray[np.float64]


def plain_error(labels: NDArray[np.int64], probabilities: Numbers) -> float:
    """Guo et al., equation 3, one image after the other."""
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(15)]
    for label, row in zip(labels, probabilities, strict=True):
        place = next(number for number in range(15) if row.max() <= (number + 1) / 15 + 1e-12)
        bins[place].append((float(row.max()), bool(row.argmax() == label)))
    gaps = [abs(sum(right - confidence for confidence, right in found)) for found in bins]
    return sum(gaps) / len(labels)


def draw(images: int, classes: int, seed: int, sharpness: float = 2.0) -> tuple[NDArray[np.int64], Numbers]:
    """Draw logits, and labels from their softmax: a perfectly calibrated model."""
    rng = np.random.default_rng(seed)
    logits = sharpness * rng.normal(size=(images, classes))
    labels = np.array([rng.choice(classes, p=row) for row in softmax(logits, axis=1)])
    return labels, logits


@pytest.mark.parametrize(("images", "classes", "seed"), [(1, 2, 0), (40, 2, 1), (300, 5, 2), (300, 8, 3)])
def test_the_error_is_that_of_the_plainest_reference(images: int, classes: int, seed: int) -> None:
    labels, logits = draw(images, classes, seed)
    probabilities = softmax(3 * logits, axis=1)
    assert calibration_error(labels, probabilities) == pytest.approx(plain_error(labels, probabilities), abs=1e-6)


def test_a_model_that_is_sure_and_always_wrong_has_an_error_of_1() -> None:
    assert calibration_error([1, 1], [[1.0, 0.0], [1.0, 0.0]]) == 1


@pytest.mark.parametrize("scale", [0.2, 1.0, 7.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_temperature_is_the_best_of_a_fine_grid(scale: float, seed: int) -> None:
    labels, logits = draw(200, 4, seed)
    found = fit_temperature(labels, scale * logits)
    grid = np.exp(np.linspace(-4, 4, 8001))
    best = grid[np.argmin([smoothed_loss(labels, scale * logits, temperature) for temperature in grid])]
    assert found == pytest.approx(best, rel=2e-3)
    assert found == pytest.approx(scale, rel=0.25)  # what the logits of a calibrated model were multiplied by


def test_the_loss_is_the_cross_entropy_with_smoothed_targets() -> None:
    labels, logits = draw(7, 3, 0)
    targets = np.full((7, 3), (1 / 9) / 2)
    targets[np.arange(7), labels] = 1 - 1 / 9
    expected = -(targets * np.log(softmax(logits / 1.7, axis=1))).sum(1).mean()
    assert smoothed_loss(labels, logits, 1.7) == pytest.approx(expected)


def test_a_temperature_does_not_change_what_is_predicted_nor_run_away_where_all_is_right() -> None:
    labels = np.array([0, 1, 2] * 10)
    logits = 4 * np.eye(3)[labels]
    temperature = fit_temperature(labels, logits)
    assert 0.1 < temperature < 10
    assert (probabilities_at(logits, temperature).argmax(1) == labels).all()


def test_a_shift_of_all_logits_changes_nothing() -> None:
    labels, logits = draw(100, 3, 5)
    assert fit_temperature(labels, logits + 40) == pytest.approx(fit_temperature(labels, logits), rel=1e-4)


def test_the_errors_by_chance_are_what_calibrated_models_have() -> None:
    _, logits = draw(150, 4, 0)
    probabilities = softmax(logits, axis=1)
    rng = np.random.default_rng(1)
    errors = [plain_error(np.array([rng.choice(4, p=row) for row in probabilities]), probabilities) for _ in range(60)]
    found = errors_by_chance(probabilities)
    assert found.mean() == pytest.approx(np.mean(errors), rel=0.1)
    assert np.quantile(found, 0.9) == pytest.approx(np.quantile(errors, 0.9), rel=0.1)


def test_the_interval_is_that_of_drawing_images_with_repeats_and_narrows_with_their_number() -> None:
    labels, logits = draw(300, 4, 5)
    probabilities = softmax(3 * logits, axis=1)
    rng = np.random.default_rng(1)
    draws = [rng.integers(0, len(labels), len(labels)) for _ in range(400)]
    errors = [calibration_error(labels[own], probabilities[own]) for own in draws]
    low, high = error_interval(labels, probabilities)
    assert (low, high) == pytest.approx(tuple(np.quantile(errors, (0.025, 0.975))), abs=0.015)
    fewer = error_interval(labels[:40], probabilities[:40])
    assert fewer[1] - fewer[0] > 1.5 * (high - low)
