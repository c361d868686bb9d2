"""DynaMMo's adapter with attention over the channels and places of what it adds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from scripts.model.networks.adapters.adapter import ADAPTERS
from scripts.model.networks.adapters.convolution import ConvAdapter, Convolutions
from scripts.model.networks.backbones.cbam import BlockAttention


class AttentionAdapter(ConvAdapter):
    """``x + alpha * attention(ReLU(BN(ConvTranspose(ReLU(BN(Conv(x)))))))``: what it adds is weighed.

    Source: Woo et al., CBAM (ECCV 2018), section 3, on the adapter of DynaMMo (MIUA 2024); beside the adapter's own,
    2 c max(1, c / 16) + 100 parameters for c channels, for volumes 688 in place of 100.

    Args:
        channels: channels c of the feature map.
        width: channels between the two convolutions.
        spatial_dims: 2 for images, 3 for volumes.
    """

    def __init__(self, channels: int, width: int, spatial_dims: int = 2) -> None:
        super().__init__(channels, width, spatial_dims)
        self.layers.append(BlockAttention(channels, spatial_dims))


@dataclass(frozen=True)
class AttendedConvolutions(Convolutions):
    """DynaMMo's adapters with attention, before the named blocks of a convolutional network.

    Args:
        width: see :class:`Convolutions`.
    """

    kind: ClassVar[str] = "attention"
    layers: ClassVar[type[ConvAdapter]] = AttentionAdapter


ADAPTERS[AttendedConvolutions.kind] = AttendedConvolutions
