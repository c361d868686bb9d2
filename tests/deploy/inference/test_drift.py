"""The drift alarm: how often it is wrong, when it is right, and what it says nothing of."""

from __future__ import annotations

import numpy as np
import pytest

from scripts.deploy.inference.drift import Drift, DriftMonitor
from scripts.model.decisions.outliers import OutlierRule
from scripts.model.decisions.results import ModelIdentity, Result
from scripts.utils.errors import UserError


def model(reference: np.ndarray, weights: str = "0" * 64) -> ModelIdentity:
    rule = OutlierRule(np.zeros((1, 1)), np.eye(1), 9.0, tuple(map(float, np.sort(reference))))
    return ModelIdentity("a", "task_0", weights, ("x", "y"), outliers=rule)


def results(of: ModelIdentity, distances: np.ndarray) -> list[Result]:
    return [Result(of, "x", {"x": 1.0, "y": 0.0}, distance=float(value)) for value in distances]


def compared(monitor: DriftMonitor, given: list[Result]) -> list[Drift]:
    return [found for result in given if (found := monitor.add(result)) is not None]


def test_images_of_the_same_kind_raise_as_many_alarms_as_the_level_says() -> None:
    rng = np.random.default_rng(0)
    found: list[Drift] = []
    for _ in range(400):  # with a new reference each time, as the level is meant
        found += compared(DriftMonitor(40, 0.1), results(model(rng.normal(5, 1, 150)), rng.normal(5, 1, 80)))
    assert len(found) == 800
    assert 0.05 < np.mean([drift.alarm for drift in found]) < 0.13  # the exact test of steps is below its level


def test_images_farther_off_raise_one_at_the_next_comparison() -> None:
    rng = np.random.default_rng(0)
    given = results(model(rng.normal(5, 1, 150)), np.r_[rng.normal(5, 1, 40), rng.normal(7, 1, 40)])
    assert [drift.alarm for drift in compared(DriftMonitor(40, 0.01), given)] == [False, True]


def test_every_image_counts_once() -> None:
    given = results(model(np.arange(50.0)), np.arange(95.0))
    assert [drift.images for drift in compared(DriftMonitor(30, 0.01), given)] == [30, 30, 30]


def test_another_model_begins_anew() -> None:
    monitor, reference = DriftMonitor(20, 0.01), np.arange(50.0)
    assert compared(monitor, results(model(reference), np.arange(19.0))) == []
    assert compared(monitor, results(model(reference, "1" * 64), np.arange(19.0))) == []
    assert len(compared(monitor, results(model(reference, "1" * 64), np.arange(1.0)))) == 1


def test_a_folder_is_judged_by_its_last_images_and_a_small_one_by_all() -> None:
    given = results(model(np.arange(50.0)), np.r_[np.full(60, 1000.0), np.linspace(0, 49, 40)])
    last, few = DriftMonitor(40, 0.01).last_of(given), DriftMonitor(500, 0.01).last_of(given[-30:])
    assert last is not None and few is not None
    assert (last.images, last.alarm, few.images) == (40, False, 30)
    assert DriftMonitor(40, 0.01).last_of(given[:19]) is None


def test_nothing_is_said_of_a_model_without_a_reference() -> None:
    plain = ModelIdentity("a", "task_0", "0" * 64, ("x", "y"))
    assert DriftMonitor(20, 0.01).last_of([plain.judge([0.5, 0.5])] * 30) is None


@pytest.mark.parametrize(("settings", "key"), [((19, 0.01), "drift_images"), ((100, 0.0), "drift_level")])
def test_numbers_that_mean_nothing_are_refused(settings: tuple[int, float], key: str) -> None:
    with pytest.raises(UserError, match=key):
        DriftMonitor(*settings)
