"""ResNet's shortcut without parameters."""

from __future__ import annotations

from monai.networks.layers import Pool
from torch import Tensor, nn
from torch.nn.functional import pad


class PaddedShortcut(nn.Module):
    """ResNet's shortcut of type A: every ``stride``-th place, zeros for the channels that are new.

    Of volumes its values are those of MONAI's, which is a ``functools.partial`` that TorchScript cannot export and
    which passes no gradient on. Source: He et al., Deep residual learning (CVPR 2016), section 4.2.

    Args:
        channels: channels that come out.
        stride: of the block.
        dimensions: 2 or 3.
    """

    def __init__(self, channels: int, stride: int, dimensions: int) -> None:
        super().__init__()
        self.channels = channels
        self.zeros = [0, 0] * dimensions
        self.every = Pool[Pool.MAX, dimensions](1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, c, H, W] to [B, channels, H / stride, W / stride], rounded up, or a volume likewise."""
        return pad(self.every(x), self.zeros + [0, self.channels - x.shape[1]])
