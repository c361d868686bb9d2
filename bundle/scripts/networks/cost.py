"""What a network costs: FLOPs and parameters."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from scripts.networks.backbones import black_image


def flops_per_image(network: nn.Module, image_size: int) -> int:
    """Count the FLOPs (2 x multiply-adds) of one image, or volume, of side ``image_size``."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network.eval()(black_image(network, image_size))
    return int(counter.get_total_flops())


def parameter_count(network: nn.Module) -> int:
    """Count the parameters."""
    return sum(parameter.numel() for parameter in network.parameters())
