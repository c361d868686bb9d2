"""Drawn features have the mean and the covariance of each class's images, as often as they are drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from scripts.learning.features import DrawnFeatures, FeatureSums
from scripts.learning.features.drawn import class_normal
from scripts.learning.tasks import ImageDataset


@pytest.fixture(scope="module")
def features() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn(2, 3, 3, dtype=torch.double, generator=generator)
    noise = torch.randn(2, 40, 3, dtype=torch.double, generator=generator)
    means = torch.tensor([[4.0, 0, 0], [0, -2, 1]], dtype=torch.double)
    return (means[:, None] + noise @ mixed).flatten(0, 1), torch.arange(2).repeat_interleave(40)


def sums_of(features: Tensor, labels: Tensor) -> FeatureSums:
    sums = FeatureSums(apart=True)
    sums.add(torch.cat([features, features.new_ones(len(features), 1)], 1), labels)
    return sums


def drawn(sums: FeatureSums, count: int, seed: int = 1) -> Tensor:
    data = DrawnFeatures(sums, count, seed).of(ImageDataset([], None), epochs=3)
    assert [data[number]["label"] for number in range(len(data))] == [0] * count + [1] * count
    return torch.stack([data[number]["image"] for number in range(len(data))])[:, 0]


def test_each_class_has_its_mean_and_covariance(features: tuple[Tensor, Tensor]) -> None:
    sums = sums_of(*features)
    for label in (0, 1):
        own = features[0][features[1] == label].numpy()
        mean, covariance = class_normal(sums, label)
        assert np.allclose(mean, own.mean(0))
        assert np.allclose(covariance, np.cov(own.T, bias=True))


def test_many_draws_have_them_too(features: tuple[Tensor, Tensor]) -> None:
    sums = sums_of(*features)
    for label, own in enumerate(drawn(sums, 20000).double().split(20000)):
        mean, covariance = class_normal(sums, label)
        spread = covariance.diagonal().max()
        assert torch.allclose(own.mean(0), mean, atol=5 * float(spread / 20000) ** 0.5)
        assert torch.allclose(torch.cov(own.T), covariance, atol=0.1 * float(spread))


def test_the_same_seed_and_classes_draw_the_same(features: tuple[Tensor, Tensor]) -> None:
    sums = sums_of(*features)
    assert torch.equal(drawn(sums, 5), drawn(sums, 5))
    assert not torch.equal(drawn(sums, 5), drawn(sums, 5, seed=2))


def test_a_class_of_one_image_is_drawn_where_it_is() -> None:
    sums = sums_of(torch.tensor([[3.0, 1, 0], [0, 0, 2]], dtype=torch.double), torch.tensor([0, 1]))
    assert torch.allclose(drawn(sums, 4)[:4], torch.tensor([3.0, 1, 0]), atol=1e-3)
