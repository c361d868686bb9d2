"""Heads of cosines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from scripts.model.networks.heads.head import HEADS, SIGNED, Ability, Head


class Scale(nn.Module):
    """A learnable factor, 1 at first."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        """Multiply a tensor of any shape."""
        return self.factor * x


class CosineHead(Head):
    """The scaled cosine between an image's features and each class's row; of several rows a class, near ones count.

    The similarity to a class with several rows (*proxies*) is the mean of their cosines, weighted by the cosines'
    softmax. The rows of each task are a layer of their own, so that the old ones can be left as they are.
    Source: Hou et al., UCIR (CVPR 2019), cosine normalisation; Douillard et al., PODNet (ECCV 2020), section 3.2.

    Args:
        width: features of one branch; the head reads one branch.
        classes: number of classes of each task learnt so far.
    """

    reads = SIGNED
    abilities = frozenset({Ability.JOINT, Ability.IMPRINTED})
    proxies: ClassVar[int] = 1

    def __init__(self, width: int, classes: Sequence[int] = ()) -> None:
        super().__init__(width, classes)
        self.width = width
        self.per_class = self.proxies
        self.scale = Scale()
        self.rows = nn.ModuleList()
        for count in classes:
            self.grow(count)

    def grow(self, num_classes: int) -> None:
        """Add freshly started rows for ``num_classes`` new classes."""
        self.rows.append(nn.Linear(self.width, num_classes * self.per_class, bias=False))

    def start_from(self, auxiliary: nn.Linear, num_classes: int) -> None:
        """Take the newest rows from an auxiliary head, whose last output is ``others``."""
        with torch.no_grad():
            self.rows[-1].get_parameter("weight").copy_(
                auxiliary.weight[:num_classes].repeat_interleave(self.per_class, 0)
            )

    def newest(self) -> list[nn.Module]:
        """Return the scale and the newest task's rows."""
        return [self.scale, *self.rows[-1:]]

    def cosines(self, features: Tensor) -> Tensor:
        """Map features [B, 1, d] to the similarity to each class, [B, C], in -1..1."""
        directions = normalize(features.flatten(1), dim=1)
        cosines = [directions[:, :0]]  # before the first task there are no rows
        for layer in self.rows:
            cosines.append(linear(directions, normalize(layer.weight, dim=1)))  # type: ignore[arg-type]
        of_proxies = torch.cat(cosines, 1).unflatten(1, [-1, self.per_class])
        return (of_proxies.softmax(2) * of_proxies).sum(2)

    def extras(self, features: Tensor) -> dict[str, Tensor]:
        """Return the cosines, [B, C]."""
        return {"cosines": self.cosines(features)}

    @torch.no_grad()
    def imprint(self, directions: Tensor) -> None:
        weights: list[Tensor] = [layer.get_parameter("weight") for layer in self.rows]
        *old, new = weights
        new.copy_(torch.cat(old).norm(dim=1).mean() * directions.to(new))

    def forward(self, features: Tensor) -> Tensor:
        """Map features [B, 1, d] to logits [B, C]."""
        return self.scale(self.cosines(features))


class ProxyHead(CosineHead):
    """PODNet's local similarity classifier: ten rows a class."""

    proxies: ClassVar[int] = 10


HEADS["cosine"] = CosineHead
HEADS["proxies"] = ProxyHead
