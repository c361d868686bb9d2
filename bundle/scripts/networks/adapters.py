"""Adapters: the few trainable layers that a task adds before a block of the frozen backbone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from scripts.errors import UserError

START_SCALE = 0.02  # DynaMMo: a new adapter hardly changes the features at first


class ConvAdapter(nn.Module):
    """A residual adapter: ``x + alpha * ReLU(BN(ConvTranspose(ReLU(BN(Conv(x))))))``.

    Height and width are kept (H, H - 2, H), so both must be at least 3.
    Source: Qazi et al., DynaMMo (MIUA 2024), adapters; 18 c^2 + 6 c + 1 parameters for c channels at full width.

    Args:
        channels: channels c of the feature map.
        width: channels between the two convolutions.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 3),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.ConvTranspose2d(width, channels, 3),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
        )
        self.scale = nn.Parameter(torch.tensor(START_SCALE))

    def forward(self, x: Tensor) -> Tensor:
        """Adapt a feature map [B, c, H, W]."""
        return x + self.scale * self.layers(x)


ADAPTERS: dict[str, Callable[[int], nn.Module]] = {
    "conv": lambda channels: ConvAdapter(channels, channels),
    "conv_bottleneck": lambda channels: ConvAdapter(channels, max(1, channels // 4)),
}


def make_adapter(name: str, channels: int) -> nn.Module:
    """Make a new adapter for a feature map of ``channels``.

    Raises:
        UserError: as :func:`check_adapter`.
    """
    check_adapter(name)
    return ADAPTERS[name](channels)


def check_adapter(name: str) -> None:
    """Refuse an unknown adapter.

    Raises:
        UserError: when ``name`` is not in :data:`ADAPTERS`; the message lists what there is.
    """
    if name not in ADAPTERS:
        raise UserError(f"unknown adapter '{name}': choose one of {', '.join(ADAPTERS)} (key 'adapter')")


class AdaptedBlock(nn.Module):
    """A segment of the backbone with the adapters that stand before it, one a branch.

    Args:
        block: the segment.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.adapters = nn.ModuleDict()
        self.block = block

    def forward(self, x: Tensor, branch: str) -> Tensor:
        """Pass [B, c, H, W] through the adapter called ``branch``, where there is one, and through the block."""
        for name, adapter in self.adapters.items():  # a loop, not a look-up: TorchScript unrolls it
            if name == branch:
                x = adapter(x)
        return self.block(x)
