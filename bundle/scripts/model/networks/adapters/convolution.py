"""DynaMMo's adapter: two convolutions before a block."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from monai.networks.layers import Conv, Norm
from torch import Tensor, nn

from scripts.model.networks.adapters.adapter import ADAPTERS, AdaptedBlock, Adapter, Place
from scripts.model.networks.backbones import Layout
from scripts.utils.errors import UserError

START_SCALE = 0.02  # DynaMMo: a new adapter hardly changes the features at first
MINIMUM_MAP = 3  # its unpadded convolution needs at least this side


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


class BlockAfterConvolutions(AdaptedBlock):
    """A segment with convolutions before it.

    Args:
        block: the segment.
        make: an adapter of the map there.
    """

    def __init__(self, block: nn.Sequential, make: Callable[[], nn.Module]) -> None:
        super().__init__(block)
        self.make = make

    def new(self, branch: str) -> nn.Module:
        return self.make()

    def forward(self, x: Tensor, branch: str) -> list[Tensor]:
        for name, adapter in self.adapters.items():  # a loop, not a look-up: TorchScript unrolls it
            if self.uses(name, branch):
                x = adapter(x)
        maps: list[Tensor] = self.block(x)
        return maps


@dataclass(frozen=True)
class Convolutions(Adapter):
    """DynaMMo's adapters, before the named blocks of a convolutional network.

    Args:
        width: channels between the two convolutions, in units of the map's; below 1 for networks whose maps are wide.

    Raises:
        UserError: for a width of 0 or less.
    """

    kind: ClassVar[str] = "conv"
    layers: ClassVar[type[ConvAdapter]] = ConvAdapter
    width: float = 1.0

    def __post_init__(self) -> None:
        """Check the value."""
        if self.width <= 0:
            raise UserError(f"adapters cannot have a width of {self.width}: use more than 0 (key 'adapter#width')")

    def inject(self, segment: nn.Sequential, place: Place | None) -> AdaptedBlock:
        if place is None:
            return AdaptedBlock(segment)
        if place.layout is not Layout.CHANNELS_FIRST:
            raise UserError(
                f"adapters '{self.kind}' stand before a convolutional network's blocks, and {place.backbone.name} is "
                "none: list part 'lora' or 'bottleneck' (key 'parts')"
            )
        inside = max(1, int(self.width * place.channels))
        return BlockAfterConvolutions(segment, partial(self.layers, place.channels, inside, place.backbone.dimensions))

    def check_image_size(self, image_size: int, places: list[tuple[Place, int]]) -> None:
        for place, stride in reversed(places):  # the last needs most
            side = -(-image_size // stride)  # every convolution of a backbone is padded
            if side < MINIMUM_MAP:
                shown, needed = (
                    " x ".join([str(number)] * place.backbone.dimensions) for number in (side, MINIMUM_MAP)
                )
                raise UserError(
                    f"image_size {image_size} is too small for {place.backbone.name}: the map before {place.site} has "
                    f"{shown} pixels, an adapter needs {needed}; use at least {(MINIMUM_MAP - 1) * stride + 1} (key "
                    "'image_size')"
                )


ADAPTERS[Convolutions.kind] = Convolutions
DYNAMMO = Convolutions()
"""The published ones."""
