"""Attention is what its equations say, on images and volumes, and few channels have it too."""

from __future__ import annotations

import pytest
import torch

from scripts.model.networks.backbones.cbam import BlockAttention


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("channels", [3, 32])
def test_attention_weighs_channels_and_then_places(channels: int, dims: int) -> None:
    torch.manual_seed(0)
    attention = BlockAttention(channels, dims).eval()
    x = torch.randn(2, channels, *[5] * dims)
    first, _, second = attention.shared
    axes = tuple(range(2, 2 + dims))
    weights = torch.zeros(2, channels, *[1] * dims)
    for pooled in (x.mean(axes, keepdim=True), x.amax(axes, keepdim=True)):
        weights += second(first(pooled).relu())
    weighed = x * torch.sigmoid(weights)
    described = torch.stack([weighed.amax(1), weighed.mean(1)], 1)
    torch.testing.assert_close(attention(x), weighed * torch.sigmoid(attention.places(described)))
