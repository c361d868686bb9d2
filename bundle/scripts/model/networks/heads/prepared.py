"""A head with rows for classes that are not there yet."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from scripts.model.networks.heads.head import HEADS, Ability
from scripts.model.networks.heads.linear import UnifiedHead, grown

PREPARED = 10  # classes to come that have rows; the authors know how many come, and prepare them all


class PreparedHead(UnifiedHead):
    """One linear layer over all classes seen so far and some to come, whose rows the new classes take over.

    Source: Boschini et al., Class-incremental continual learning into the eXtended DER-verse (TPAMI 2022).

    Args:
        width: features of one branch; the head reads one branch.
        classes: number of classes of each task learnt so far.
    """

    abilities = frozenset({Ability.JOINT})

    def __init__(self, width: int, classes: Sequence[int] = ()) -> None:
        super().__init__(width, [*classes, PREPARED])
        self.seen = sum(classes)

    def grow(self, num_classes: int) -> None:
        """Give the next rows to ``num_classes`` new classes, and prepare as many others."""
        self.seen += num_classes
        self.linear = grown(self.linear, self.linear.in_features, self.seen + PREPARED)

    def forward(self, features: Tensor) -> Tensor:
        """Map features [B, 1, d] to logits [B, C] of the classes seen."""
        return self.linear(features.flatten(1))[:, : self.seen]

    def extras(self, features: Tensor) -> dict[str, Tensor]:
        """Return the logits of classes to come, [B, :data:`PREPARED`], as ``future``."""
        return {"future": self.linear(features.flatten(1))[:, self.seen :]}


HEADS["prepared"] = PreparedHead
