"""Heads with one linear layer over all classes, trained or solved."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from scripts.model.networks.closed_form import ridge
from scripts.model.networks.heads.head import HEADS, LEVELS, Ability, Head

SCALE = (
    10.0  # of squared distances (0..4) as logits: an image 0.2 nearer to one mean than to another is 7 times as likely
)
PROJECTIONS = 2000  # random features; RanPAC has 10,000, whose sums take 0.8 GB


def grown(linear: nn.Linear, inputs: int, outputs: int) -> nn.Linear:
    """Return a larger layer that begins with the weights of ``linear``; what is added is freshly started."""
    larger = nn.Linear(inputs, outputs).to(linear.weight)
    with torch.no_grad():
        larger.weight[: linear.out_features, : linear.in_features] = linear.weight
        larger.bias[: linear.out_features] = linear.bias
    return larger


class UnifiedHead(Head):
    """One linear layer over all classes seen so far (DynaMMo, balanced fine-tuning), trained or solved.

    Args:
        width: features of one branch; the head reads one branch.
        classes: number of classes of each task learnt so far.
    """

    abilities = frozenset({Ability.JOINT, Ability.LINEAR, Ability.SOLVED, Ability.FINDINGS})

    def __init__(self, width: int, classes: Sequence[int] = ()) -> None:
        super().__init__(width, classes)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Initializing zero-element tensors")  # before the first task
            self.linear = nn.Linear(width, sum(classes))

    def grow(self, num_classes: int) -> None:
        """Add freshly started rows for ``num_classes`` new classes; the old rows stay as they are."""
        self.linear = grown(self.linear, self.linear.in_features, self.linear.out_features + num_classes)

    def start_from(self, auxiliary: nn.Linear, num_classes: int) -> None:
        """Take the newest ``num_classes`` rows from an auxiliary head, whose last output is ``others``."""
        with torch.no_grad():
            self.linear.weight[-num_classes:] = auxiliary.weight[:num_classes]
            self.linear.bias[-num_classes:] = auxiliary.bias[:num_classes]

    def linear_layer(self) -> nn.Linear:
        return self.linear

    @torch.no_grad()
    def solve(self, second: Tensor, first: Tensor, shrinkage: float) -> None:
        """Take the weights of ridge regression; see :func:`scripts.model.networks.closed_form.ridge`."""
        weights = ridge(second.sum(0), first, shrinkage)
        self.linear.weight.copy_(weights[:, :-1])
        self.linear.bias.copy_(weights[:, -1])

    def forward(self, features: Tensor) -> Tensor:
        """Map features [B, 1, d] to logits [B, C]."""
        return self.linear(self.embed(features.flatten(1)))


class RandomProjectionHead(UnifiedHead):
    """A linear layer, always solved, on random features relu(f P), whose P is drawn once.

    Source: McDonnell et al., RanPAC (NeurIPS 2023).

    Args:
        width: features of one branch; the head reads one branch.
        classes: number of classes of each task learnt so far.
    """

    def __init__(self, width: int, classes: Sequence[int] = ()) -> None:
        super().__init__(PROJECTIONS, classes)
        self.projection: Tensor
        self.register_buffer("projection", torch.randn(width, PROJECTIONS))

    def start_from(self, auxiliary: nn.Linear, num_classes: int) -> None:
        """Take nothing: the auxiliary head reads other features."""

    def embed(self, features: Tensor) -> Tensor:
        """Map features [N, d] to random ones, [N, D]."""
        return (features @ self.projection).relu()


class LevelsHead(UnifiedHead):
    """One linear layer that reads the levels before the last: textures and colours stand in early maps.

    Of the map before each adapter but the first it reads the mean and the standard deviation over the image. The
    adapters are tuned on the last map, as without it. That map is left out: what tuning has fitted to the training
    images says more of these than of others, and a head solved on the same images would rely on it.

    Args:
        width: means and standard deviations that it reads, the last ones of the features.
        classes: number of classes of each task learnt so far.
    """

    reads: ClassVar[str] = LEVELS

    def start_from(self, auxiliary: nn.Linear, num_classes: int) -> None:
        """Take nothing: the auxiliary head reads the last map."""

    def embed(self, features: Tensor) -> Tensor:
        """Map features [N, d] to the levels before the last map, [N, D]."""
        return features[:, -self.linear.in_features :]


class ConcatenatedHead(UnifiedHead):
    """One linear layer over all classes seen so far that reads a branch a task, [B, T, d].

    Source: Yan et al., DER (CVPR 2021), section 3.2, classifier.

    Args:
        width: features of one branch.
        classes: number of classes of each task learnt so far.
    """

    concatenates = True
    abilities = frozenset({Ability.JOINT, Ability.LINEAR})

    def __init__(self, width: int, classes: Sequence[int] = ()) -> None:
        super().__init__(width * max(1, len(classes)), classes)
        self.width = width

    def grow(self, num_classes: int) -> None:
        """Add rows for ``num_classes`` new classes and, from the second task on, columns for a new branch."""
        seen = self.linear.out_features
        columns = self.linear.in_features + self.width if seen else self.width
        self.linear = grown(self.linear, columns, seen + num_classes)


class NearestMeanHead(UnifiedHead):
    """A linear layer learns; in evaluation the nearest class mean decides, on L2-normalised features.

    Source: Rebuffi et al., iCaRL (CVPR 2017), algorithm 1; the means are normalised too, as the paper has it.

    Args:
        width: features of one branch; the head reads one branch.
        classes: number of classes of each task learnt so far.
    """

    abilities = frozenset({Ability.JOINT, Ability.LINEAR, Ability.MEANS})

    def __init__(self, width: int, classes: Sequence[int] = ()) -> None:
        super().__init__(width, classes)
        self.scale = SCALE
        self.means: Tensor
        self.register_buffer("means", torch.zeros(sum(classes), width))

    def grow(self, num_classes: int) -> None:
        """Add rows and, still zero, means for ``num_classes`` new classes."""
        super().grow(num_classes)
        self.means = torch.cat([self.means, self.means.new_zeros(num_classes, self.means.shape[1])])

    def forward(self, features: Tensor) -> Tensor:
        """Map features [B, 1, d] to logits [B, C]; in evaluation to minus the scaled squared distances."""
        if self.training:
            return self.linear(features.flatten(1))
        # not as 2 - 2 ab, which is nothing but rounding errors where all features are alike
        differences = normalize(features.flatten(1), dim=1).unsqueeze(1) - self.means
        return -self.scale * differences.square().sum(2)

    def take_mean(self, label: int, mean: Tensor) -> None:
        self.means[label] = mean

    def extras(self, features: Tensor) -> dict[str, Tensor]:
        """Return the logits of the linear layer, [B, C], as ``softmax``."""
        return {"softmax": self.linear(features.flatten(1))}


HEADS["unified"] = UnifiedHead
HEADS["levels"] = LevelsHead
HEADS["nearest_mean"] = NearestMeanHead
HEADS["concatenated"] = ConcatenatedHead
HEADS["random_projection"] = RandomProjectionHead
