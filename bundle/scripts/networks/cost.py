"""What a network costs: FLOPs and parameters."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def flops_per_image(network: nn.Module, image_size: int) -> int:
    """Count the FLOPs (2 x multiply-adds) of one image [1, 3, image_size, image_size]."""
    counter = FlopCounterMode(display=False)
    image = torch.zeros(1, 3, image_size, image_size, device=next(network.parameters()).device)
    with torch.no_grad(), counter:
        network.eval()(image)
    return int(counter.get_total_flops())


def parameter_count(network: nn.Module) -> int:
    """Count the parameters."""
    return sum(parameter.numel() for parameter in network.parameters())
