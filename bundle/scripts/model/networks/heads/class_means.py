"""Heads of class means, from sums over all images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from scripts.model.networks.closed_form import whitening
from scripts.model.networks.heads.head import HEADS, Ability, Head


class ClassMeansHead(Head):
    """The nearest class mean decides, on L2-normalised features; the means come from sums over all images.

    With covariances the distance is Mahalanobis's, on square roots of the features (FeCAM), else Euclid's (NCM).
    Source: Goswami et al., FeCAM (NeurIPS 2023).

    Args:
        width: features of one branch; the head reads one branch.
        classes: number of classes of each task learnt so far.
    """

    abilities = frozenset({Ability.JOINT, Ability.SOLVED})

    def __init__(self, width: int, classes: Sequence[int] = ()) -> None:
        super().__init__(width, classes)
        self.covariances = self.has_covariances
        count = sum(classes)
        self.means: Tensor
        self.whitening: Tensor
        self.register_buffer("means", torch.zeros(count, width))
        self.register_buffer("whitening", torch.zeros(count, width, width) if self.covariances else torch.zeros(0))

    def grow(self, num_classes: int) -> None:
        grown = type(self)(self.means.shape[1], [len(self.means) + num_classes])
        self.means, self.whitening = grown.means, grown.whitening

    def embed(self, features: Tensor) -> Tensor:
        return features.clamp(min=0).sqrt() if self.covariances else features

    def solve(self, second: Tensor, first: Tensor, shrinkage: float) -> None:
        """Take means and, where it has any, covariances; see :func:`scripts.model.networks.closed_form.whitening`."""
        means = first[:, :-1] / first[:, -1:]  # the sum of the ones is the weight of what is left of the class
        self.means = means.to(self.means)
        if self.covariances:
            seconds = second[:, :-1, :-1] / first[:, -1:, None]
            self.whitening = whitening(seconds, means, shrinkage).to(self.whitening)

    def forward(self, features: Tensor) -> Tensor:
        """Map features [B, 1, d] to minus the squared distances [B, C]."""
        embedded = normalize(self.embed(features.flatten(1)), dim=1).unsqueeze(1)
        differences = embedded - normalize(self.means, dim=1)
        if self.covariances:
            differences = torch.einsum("cij,bcj->bci", self.whitening, differences)
        return -differences.square().sum(2)


class CovariancesHead(ClassMeansHead):
    """FeCAM: class means with a covariance each."""

    has_covariances: ClassVar[bool] = True


HEADS["ncm"] = ClassMeansHead
HEADS["fecam"] = CovariancesHead
