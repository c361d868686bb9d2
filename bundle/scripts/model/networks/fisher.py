"""The diagonal of the Fisher information: how much what a network says depends on each of its parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor


def fisher_diagonal(
    parameters: Mapping[str, Tensor], logits: Callable[[Tensor], Tensor], images: Iterable[Tensor]
) -> dict[str, Tensor]:
    """Return the squared gradients of log p(y | image), summed over the images, on the CPU.

    The label y of each image is drawn from what is said of it, with a generator of its own. Source: Matena and Raffel,
    Merging models with Fisher-weighted averaging (NeurIPS 2022), equation 3; Kirkpatrick et al., EWC (PNAS 2017).

    Args:
        parameters: by name, each with a gradient.
        logits: from a batch of one image to its logits [1, C].
        images: batches of one.
    """
    generator = torch.Generator().manual_seed(0)
    fisher = {name: torch.zeros_like(value) for name, value in parameters.items()}
    for image in images:
        logarithms = logits(image).log_softmax(1)[0]
        drawn = int(torch.multinomial(logarithms.detach().exp().cpu(), 1, generator=generator))
        gradients = torch.autograd.grad(logarithms[drawn], list(parameters.values()))
        for total, gradient in zip(fisher.values(), gradients, strict=True):
            total += gradient.square()
    return {name: value.cpu() for name, value in fisher.items()}
