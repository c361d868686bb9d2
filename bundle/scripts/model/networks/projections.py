"""What stands on features while a backbone learns from images without labels, and is dropped afterwards."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Projection(nn.Sequential):
    """Two layers from features to what is compared.

    Source: Chen et al., Improved baselines with momentum contrastive learning (MoCo v2, 2020).

    Args:
        width: of the features.
        outputs: of what is compared.
    """

    def __init__(self, width: int, outputs: int = 128) -> None:
        super().__init__(nn.Linear(width, width), nn.ReLU(inplace=True), nn.Linear(width, outputs))


class PredictedProjection(nn.Module):
    """Three layers from features to a projection, and two from one view's projection to the other's.

    Source: Chen and He, Exploring simple Siamese representation learning (SimSiam, CVPR 2021), section 4.

    Args:
        width: of the features.
        outputs: of the projection; published 2048.
        hidden: of the predictor; published 512, a quarter of the outputs.
    """

    def __init__(self, width: int, outputs: int = 2048, hidden: int = 512) -> None:
        super().__init__()
        self.projection = nn.Sequential(
            *_rectified(width, outputs),
            *_rectified(outputs, outputs),
            nn.Linear(outputs, outputs, bias=False),
            nn.BatchNorm1d(outputs, affine=False),
        )
        self.predictor = nn.Sequential(*_rectified(outputs, hidden), nn.Linear(hidden, outputs))

    def forward(self, features: Tensor) -> Tensor:
        """Map features [B, d] to projections and predictions, [B, 2, D]."""
        projected = self.projection(features)
        return torch.stack([projected, self.predictor(projected)], 1)


def _rectified(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU(inplace=True)]
