"""What a network costs: FLOPs and parameters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from scripts.model.networks.backbones import black_image


def flops_per_image(network: nn.Module, image_size: int) -> int:
    """Count the FLOPs (2 x multiply-adds) of one image, or volume, of side ``image_size``; attention counts."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), attention_in_the_open(), counter:
        network.eval()(black_image(network, image_size))
    return int(counter.get_total_flops())


@contextmanager
def attention_in_the_open() -> Iterator[None]:
    """Compute attention as matrix products: the counter does not know of all fused kernels."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def parameter_count(network: nn.Module) -> int:
    """Return how many numbers a network has to learn or was learnt with."""
    return sum(parameter.numel() for parameter in network.parameters())
