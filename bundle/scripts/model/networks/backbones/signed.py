"""Backbones whose features have signs: without the activation at their end."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class SignedBlock(nn.Module):
    """A residual block without its last ReLU; its layers keep their names, so that its weights fit.

    torchvision's and MONAI's blocks call one ReLU module two or three times, so it cannot simply be replaced.

    Args:
        block: torchvision's ``BasicBlock`` or ``Bottleneck``, or MONAI's ``ResNetBlock``, whose layers it takes over.
    """

    def __init__(self, block: Any) -> None:
        super().__init__()
        three = hasattr(block, "conv3")
        self.conv1, self.bn1 = block.conv1, block.bn1
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2, self.bn2 = block.conv2, block.bn2
        self.relu2 = nn.ReLU(inplace=True) if three else nn.Identity()
        self.conv3: nn.Module = block.conv3 if three else nn.Identity()
        self.bn3: nn.Module = block.bn3 if three else nn.Identity()
        self.downsample = nn.Identity() if block.downsample is None else block.downsample

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, c, H, W], or [B, c, D, H, W], to a map of the block's shape, of both signs."""
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(self.relu2(self.bn2(self.conv2(y)))))
        return y + self.downsample(x)


def drop_last_activation(block: nn.Module) -> None:
    """Take the activation off the end of a backbone's last block.

    Source: Hou et al., Learning a unified classifier incrementally via rebalancing (CVPR 2019).

    Args:
        block: a ResNet's residual blocks, or convolution, BatchNorm and activation of MobileNetV2 and EfficientNet.
    """
    assert isinstance(block, nn.Sequential)
    last = block[-1]
    block[-1] = SignedBlock(last) if hasattr(last, "conv1") else nn.Identity()
