"""CBAM: attention over the channels of a map, then over its places."""

from __future__ import annotations

from functools import partial

import torch
from monai.networks.layers import Conv, Norm
from torch import Tensor, nn

REDUCTION, KERNEL = 16, 7


class BlockAttention(nn.Module):
    """Weigh the channels of a map, then its places.

    Source: Woo et al., CBAM: Convolutional block attention module (ECCV 2018), equations 1 to 3.

    Args:
        channels: of the map.
        spatial_dims: 2 for images, 3 for volumes.
    """

    def __init__(self, channels: int, spatial_dims: int = 2) -> None:
        super().__init__()
        narrow = max(1, channels // REDUCTION)
        self.axes = list(range(2, 2 + spatial_dims))
        conv = Conv[Conv.CONV, spatial_dims]
        dense = partial(conv, kernel_size=1, bias=False)
        self.shared = nn.Sequential(dense(channels, narrow), nn.ReLU(inplace=True), dense(narrow, channels))
        self.places = nn.Sequential(
            conv(2, 1, KERNEL, padding=KERNEL // 2, bias=False), Norm[Norm.BATCH, spatial_dims](1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, c, H, W], or [B, c, D, H, W], to its shape."""
        mean, largest = x.mean(self.axes, keepdim=True), x.amax(self.axes, keepdim=True)
        x = x * (self.shared(mean) + self.shared(largest)).sigmoid()
        described = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], 1)
        return x * self.places(described).sigmoid()
