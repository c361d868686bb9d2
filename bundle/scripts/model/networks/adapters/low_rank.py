"""Low-rank linear adapters: beside each convolution and linear layer, and folded into its weight in the end."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from scripts.model.networks.adapters.adapter import ADAPTERS, MERGED, AdaptedBlock, Adapter, Place
from scripts.utils.errors import UserError

LAYERS = (nn.Linear, nn.Conv2d, nn.Conv3d)


def weight_names(block: nn.Module) -> Iterator[str]:
    """Yield the names of the weights that can be changed: of convolutions, linear layers and attention."""
    for name, module in block.named_modules():
        if isinstance(module, nn.MultiheadAttention):
            yield f"{name}.in_proj_weight"  # of queries, keys and values
        elif isinstance(module, LAYERS):
            yield f"{name}.weight"


class LowRankChange(nn.Module):
    """The change ``scale * B A`` of a layer's weight; zero at first.

    A maps the layer's input to ``rank`` channels (a convolution of the layer's own kernel, stride and padding), B maps
    these to its output (a 1 x 1 convolution). Both are linear, so ``conv(x) + scale * B(A(x))`` is one convolution with
    the changed weight. The groups of a convolution (the channels of a depthwise one) share A's kernels.
    Source: Hu et al., LoRA (arXiv 2106.09685), section 4.1, scaled by ``scale`` (there alpha / r).

    Args:
        weight: of the layer, [out, in, ...].
        rank: channels between A and B; at most those of the weight's own rank are used.
        scale: of the product; as small as the adapter's steps are to be beside those of the head, which learns with it.
    """

    def __init__(self, weight: Tensor, rank: int, scale: float) -> None:
        super().__init__()
        outputs, inputs = weight.shape[0], weight[0].numel()
        self.shape = weight.shape
        self.scale = scale
        self.a = nn.Parameter(weight.new_empty(min(rank, outputs, inputs), inputs))
        self.b = nn.Parameter(weight.new_zeros(outputs, len(self.a)))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))  # as torch starts any layer of as many inputs

    def forward(self) -> Tensor:
        """Return the change, of the weight's shape."""
        return self.scale * (self.b @ self.a).view(self.shape)


class DenseChange(nn.Module):
    """A change of any rank of a layer's weight: that of merged adapters, kept until they are merged anew.

    Args:
        weight: of the layer.
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.change: Tensor
        self.register_buffer("change", torch.zeros_like(weight))

    def forward(self) -> Tensor:
        """Return the change, of the weight's shape."""
        return self.change


class LowRankBlock(AdaptedBlock):
    """A segment of the backbone whose adapters change the weights of its layers, instead of its input.

    Every linear layer, every convolution and the queries, keys and values of attention have an adapter. The backbone's
    own weights are never written to.

    Args:
        block: the segment.
        rank: of the changes.
        scale: of the changes; see :class:`LowRankChange`.
    """

    def __init__(self, block: nn.Sequential, rank: int, scale: float) -> None:
        super().__init__(block)
        self.rank = rank
        self.scale = scale
        self.layers = {name.removesuffix(".weight").replace(".", "_"): name for name in weight_names(block)}

    def new(self, branch: str) -> nn.Module:
        """Make the adapter of a branch: a change a layer, a dense one for the merged branch."""
        weights = {key: self.block.get_parameter(name).detach() for key, name in self.layers.items()}
        return nn.ModuleDict(
            {
                key: DenseChange(weight) if branch == MERGED else LowRankChange(weight, self.rank, self.scale)
                for key, weight in weights.items()
            }
        )

    def mergeable(self, branch: str) -> dict[str, Tensor]:
        """Return the products of a branch, not their factors, under the names of a dense adapter's entries."""
        return {f"{key}.change": change.detach() for key, change in self.changes(branch).items()}

    def changes(self, branch: str) -> dict[str, Tensor]:
        """Return the change of each layer's weight; none for a branch without an adapter."""
        if branch not in self.adapters:
            return {}
        adapter = self.adapters[branch]
        assert isinstance(adapter, nn.ModuleDict)
        return {key: change() for key, change in adapter.items()}

    def folded(self, branch: str) -> dict[str, Tensor]:
        changes = [self.changes(name) for name in self.adapters if self.uses(name, branch)]
        return {
            name: sum((own[key] for own in changes), self.block.get_parameter(name))
            for key, name in self.layers.items()
        }

    def forward(self, x: Tensor, branch: str) -> list[Tensor]:
        """Pass a map through the segment with the weights of ``branch``."""
        return functional_call(self.block, self.folded(branch), (x,))


@dataclass(frozen=True)
class LowRank(Adapter):
    """Low-rank changes of all weights from the first site on.

    Args:
        rank: of each.
        scale: of each; see :class:`LowRankChange`.

    Raises:
        UserError: for a rank below 1.
    """

    kind: ClassVar[str] = "lora"
    rank: int = 8
    scale: float = 0.25

    def __post_init__(self) -> None:
        """Check the value."""
        if self.rank < 1:
            raise UserError(f"low-rank adapters cannot have rank {self.rank}: use at least 1 (key 'adapter#rank')")

    @property
    def folds(self) -> bool:
        return True

    @property
    def products(self) -> bool:
        return True

    def inject(self, segment: nn.Sequential, place: Place | None) -> AdaptedBlock:
        return LowRankBlock(segment, self.rank, self.scale)

    def check_start(self, start: str) -> None:
        if start == "running_mean":
            raise UserError(
                f"adapters '{self.kind}' cannot start from a running mean, since a mean of products has no low rank: "
                "use 'previous' or 'first' (key 'network_def#adapter_start')"
            )


ADAPTERS[LowRank.kind] = LowRank
