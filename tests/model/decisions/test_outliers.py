"""The distance of an image from those that were learnt from, against its equation written plainly."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.typing import NDArray

from scripts.model.decisions.outliers import (
    REFERENCE,
    SMALLEST,
    OutlierRule,
    StatisticsSums,
    distances,
    image_statistics,
    make_rule,
)
from scripts.model.decisions.results import Doubt, ModelIdentity
from scripts.utils.errors import UserError

Numbers = NDArray[np.float64]


def gaussian(images: int, seed: int = 0, centre: float = 0.0) -> Numbers:
    """Draw statistics whose entries depend on each other."""
    mixing = np.random.default_rng(99).normal(size=(5, 5))
    return np.random.default_rng(seed).normal(size=(images, 5)) @ mixing + centre


def counted(*classes: Numbers) -> StatisticsSums:
    sums = StatisticsSums()
    for label, statistics in enumerate(classes):
        sums.count(label, statistics)
    return sums


def test_means_and_covariance_are_those_of_all_images_at_once() -> None:
    classes = [gaussian(30), gaussian(50, 1, 4.0)]
    means, precision = counted(*classes).fitted()
    assert means == pytest.approx(np.array([part.mean(0) for part in classes]))
    residuals = np.concatenate([part - part.mean(0) for part in classes])
    covariance = sum(np.outer(row, row) for row in residuals) / 80
    drawn = 80 / 85 * covariance + 5 / 85 * np.diag(np.diag(covariance) + SMALLEST)
    assert precision @ drawn == pytest.approx(np.eye(5), abs=1e-8)


def test_the_distance_is_mahalanobis_to_the_nearest_mean() -> None:
    means, precision = counted(gaussian(30), gaussian(50, 1, 4.0)).fitted()
    images = gaussian(20, 2, 1.0)
    plain = [min(np.sqrt((row - mean) @ precision @ (row - mean)) for mean in means) for row in images]
    assert distances(images, means, precision) == pytest.approx(np.array(plain))


@pytest.mark.parametrize("images", [1, 2, 4])
def test_classes_of_few_images_have_a_distance_too(images: int) -> None:
    rule = make_rule(counted(gaussian(images), gaussian(1, 1)), gaussian(10, 3), 0.95)
    assert np.isfinite(rule.threshold)


@pytest.mark.parametrize("acceptance", [0.5, 0.95, 1.0])
def test_the_threshold_accepts_that_share_of_the_typical_images_and_nearly_of_others(acceptance: float) -> None:
    rule = make_rule(counted(gaussian(300)), gaussian(400, 1), acceptance)
    accepted = [
        np.mean(distances(gaussian(size, seed), rule.means, rule.precision) <= rule.threshold)
        for size, seed in ((400, 1), (5000, 2))
    ]
    assert accepted[0] >= acceptance
    assert accepted[0] < acceptance + 1 / 100
    assert accepted[1] == pytest.approx(acceptance, abs=0.04)


def test_at_most_so_many_distances_are_kept_and_they_are_spread_as_all_are() -> None:
    typical = gaussian(3000, 1)
    rule = make_rule(counted(gaussian(300)), typical, 0.95)
    assert len(rule.reference) == REFERENCE
    found = distances(typical, rule.means, rule.precision)
    assert np.quantile(rule.reference, [0.1, 0.5, 0.9]) == pytest.approx(np.quantile(found, [0.1, 0.5, 0.9]), rel=0.01)


def test_a_class_that_is_counted_again_counts_once() -> None:
    sums = counted(gaussian(30))
    sums.count(0, gaussian(30))
    assert sums.state_dict() == counted(gaussian(30)).state_dict()


def test_sums_and_rule_come_back_from_what_is_written() -> None:
    sums = counted(gaussian(30), gaussian(5, 1))
    again = StatisticsSums()
    again.load_state_dict(sums.state_dict())
    rule = make_rule(again, gaussian(9, 2), 0.9)
    read = OutlierRule.read(json.loads(json.dumps(make_rule(sums, gaussian(9, 2), 0.9).record())))
    assert read is not None
    assert (read.record(), OutlierRule.read(None)) == (rule.record(), None)


def test_the_statistics_are_those_of_the_plainest_reference() -> None:
    image = np.random.default_rng(0).normal(size=(3, 40, 37)).astype(np.float32)
    plain: list[float] = [float(channel.mean()) for channel in image]
    plain += [0.5 * np.log(channel.astype(np.float64).var() + SMALLEST) for channel in image]
    plain += [np.corrcoef(image[one].ravel(), image[two].ravel())[0, 1] for one, two in ((0, 1), (0, 2), (1, 2))]
    pixels = image.astype(np.float64)
    for _ in range(4):
        down, right = pixels[:, 1:] - pixels[:, :-1], pixels[:, :, 1:] - pixels[:, :, :-1]
        roots = [np.sqrt(SMALLEST + ((a**2).mean() + (b**2).mean()) / 2) for a, b in zip(down, right, strict=True)]
        absolute = np.mean([(abs(a).mean() + abs(b).mean()) / 2 for a, b in zip(down, right, strict=True)])
        plain += [*np.log(roots), absolute / np.mean(roots)]
        height, width = (side // 2 * 2 for side in pixels.shape[1:])
        pixels = pixels[:, :height, :width].reshape(3, height // 2, 2, width // 2, 2).mean((2, 4))
    assert image_statistics(image) == pytest.approx(np.array(plain), abs=1e-4)


@pytest.mark.parametrize("shape", [(1, 9, 9, 9), (3, 1, 1), (1, 2, 3), (3, 33, 33)], ids=str)
@pytest.mark.parametrize("value", [0.0, 255.0])
def test_black_and_tiny_images_have_finite_statistics(shape: tuple[int, ...], value: float) -> None:
    assert np.isfinite(image_statistics(np.full(shape, value, np.float32))).all()


def test_an_outlier_is_indeterminate_however_sure_the_network_is() -> None:
    rng = np.random.default_rng(0)
    like = [rng.normal(size=(1, 16, 16)).astype(np.float32) for _ in range(60)]
    statistics = np.stack([image_statistics(image) for image in like])
    rule = make_rule(counted(statistics[:40]), statistics[40:], 1.0)
    model = ModelIdentity("a", "task_0", "0" * 64, ("x", "y"), threshold=0.9, outliers=rule)
    said = [
        model.judge(sure, image)
        for sure in ([0.99, 0.01], [0.6, 0.4])
        for image in (like[50], np.ones((1, 16, 16), np.float32), None)
    ]
    assert [result.doubt for result in said] == [
        None,
        Doubt.OUTLIER,
        None,
        Doubt.IMPROBABLE,
        Doubt.OUTLIER,
        Doubt.IMPROBABLE,
    ]
    assert said[1].record()["doubt"] == "outlier"
    assert (said[1].distance or 0) > rule.threshold >= (said[0].distance or 0)


BROKEN = [
    {},
    {"means": [[0.0]], "precision": [[1.0]], "threshold": "far", "reference": []},
    {"means": [[0.0]], "precision": [[1.0, 0.0]], "threshold": 1.0, "reference": []},
    {"means": [[float("nan")]], "precision": [[1.0]], "threshold": 1.0, "reference": []},
    {"means": [], "precision": [], "threshold": 1.0, "reference": []},
]


@pytest.mark.parametrize("record", BROKEN, ids=str)
def test_a_broken_rule_is_refused_with_what_to_do(record: dict[str, object]) -> None:
    with pytest.raises(UserError, match="outliers cannot be used .*restore network.json"):
        OutlierRule.read(record)
