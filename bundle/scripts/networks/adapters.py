"""Adapters: the few trainable layers that a task adds before a block of the frozen backbone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from monai.networks.layers import Conv, Norm
from torch import Tensor, nn

from scripts.errors import UserError

LOW_RANK = "lora"  # of :mod:`scripts.networks.low_rank`: these change layers and fold into them
MERGED = "merged"  # the branch of the merged adapters
START_SCALE = 0.02  # DynaMMo: a new adapter hardly changes the features at first


class ConvAdapter(nn.Module):
    """A residual adapter: ``x + alpha * ReLU(BN(ConvTranspose(ReLU(BN(Conv(x))))))``.

    Height and width (and depth) are kept (H, H - 2, H), so each must be at least 3.
    Source: Qazi et al., DynaMMo (MIUA 2024), adapters; 18 c^2 + 6 c + 1 parameters for c channels at full width, for
    volumes 54 c^2 + 6 c + 1.

    Args:
        channels: channels c of the feature map.
        width: channels between the two convolutions.
        spatial_dims: 2 for images, 3 for volumes.
    """

    def __init__(self, channels: int, width: int, spatial_dims: int = 2) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            Conv[Conv.CONV, spatial_dims](channels, width, 3),
            Norm[Norm.BATCH, spatial_dims](width),
            nn.ReLU(),
            Conv[Conv.CONVTRANS, spatial_dims](width, channels, 3),
            Norm[Norm.BATCH, spatial_dims](channels),
            nn.ReLU(),
        )
        self.scale = nn.Parameter(torch.tensor(START_SCALE))

    def forward(self, x: Tensor) -> Tensor:
        """Adapt a feature map [B, c, H, W], or [B, c, D, H, W]."""
        return x + self.scale * self.layers(x)


ADAPTERS: dict[str, Callable[[int, int], nn.Module]] = {
    "conv": lambda channels, spatial_dims: ConvAdapter(channels, channels, spatial_dims),
    "conv_bottleneck": lambda channels, spatial_dims: ConvAdapter(channels, max(1, channels // 4), spatial_dims),
}


def make_adapter(name: str, channels: int, spatial_dims: int = 2) -> nn.Module:
    """Make a new adapter for a feature map of ``channels`` and 2 or 3 spatial dimensions.

    Raises:
        UserError: as :func:`check_adapter`.
    """
    check_adapter(name)
    return ADAPTERS[name](channels, spatial_dims)


def check_adapter(name: str) -> None:
    """Refuse an unknown adapter.

    Raises:
        UserError: when ``name`` is neither in :data:`ADAPTERS` nor :data:`LOW_RANK`; the message lists what there is.
    """
    if name not in (*ADAPTERS, LOW_RANK):
        raise UserError(
            f"unknown adapter '{name}': choose one of {', '.join([*ADAPTERS, LOW_RANK])} (key 'adapter#kind')"
        )


class AdaptedBlock(nn.Module):
    """A segment of the backbone with the adapters that stand before it, one a branch.

    Args:
        block: the segment.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.adapters = nn.ModuleDict()
        self.block = block

    def mergeable(self, branch: str) -> dict[str, Tensor]:
        """Return what a merging strategy reads of the adapter called ``branch``: its state."""
        return self.adapters[branch].state_dict()

    def forward(self, x: Tensor, branch: str) -> Tensor:
        """Pass a feature map through the adapter called ``branch``, where there is one, and through the block."""
        for name, adapter in self.adapters.items():  # a loop, not a look-up: TorchScript unrolls it
            if name == branch:
                x = adapter(x)
        return self.block(x)
