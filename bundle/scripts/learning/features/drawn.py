"""Features drawn from what is kept of each class, in the place of images."""

from __future__ import annotations

import torch
from torch import Tensor

from scripts.learning.features.dataset import FeatureDataset
from scripts.learning.features.sums import FeatureSums
from scripts.learning.tasks.dataset import ImageDataset
from scripts.model.networks.closed_form import ROUNDING

JITTER = 1e-4  # of the mean variance, added to each: a class of few images has none in most directions


class DrawnFeatures:
    """Gives a stage features drawn from a normal distribution a class, as many of each.

    Source: Zhang et al., SLCA (ICCV 2023), section 3.3, which draws anew in each epoch.

    Args:
        sums: over the features of each class, kept apart.
        per_class: features drawn of each class.
        seed: of the draw, which depends on it and the number of classes alone.
    """

    def __init__(self, sums: FeatureSums, per_class: int, seed: int) -> None:
        self.sums = sums
        self.per_class = per_class
        self.seed = seed

    def of(self, images: ImageDataset, epochs: int) -> FeatureDataset:
        """Return the drawn features of all classes kept; the images are not looked at."""
        classes = len(self.sums.weights)
        generator = torch.Generator().manual_seed(1000 * self.seed + classes)
        drawn = torch.cat([self._of_class(label, generator) for label in range(classes)])
        items = [{"label": label} for label in range(classes) for _ in range(self.per_class)]
        return FeatureDataset(items, drawn[:, None, None], lambda: 0)

    def _of_class(self, label: int, generator: torch.Generator) -> Tensor:
        """Draw from N(mean, covariance), [per_class, d]."""
        mean, covariance = class_normal(self.sums, label)
        width = len(mean)
        added = JITTER * covariance.diagonal().mean().clamp(min=0) + ROUNDING * (1 + mean.square().mean())
        lifted = covariance + added * torch.eye(width, dtype=mean.dtype)
        noise = torch.randn(self.per_class, width, dtype=mean.dtype, generator=generator)
        return (mean + noise @ torch.linalg.cholesky(lifted).T).float()


def class_normal(sums: FeatureSums, label: int) -> tuple[Tensor, Tensor]:
    """Return mean [d] and covariance [d, d] (divided by n) of a class's features, float64."""
    weight = sums.first[label, -1]
    mean = sums.first[label, :-1] / weight
    return mean, sums.second[label, :-1, :-1] / weight - torch.outer(mean, mean)
