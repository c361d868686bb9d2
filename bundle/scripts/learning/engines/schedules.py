"""Learning-rate schedules given by fractions of the epochs, so that they fit any number of epochs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, MultiStepLR


def fractional_milestones(
    optimizer: Optimizer, epochs: int, fractions: Sequence[float], gamma: float = 0.1
) -> LRScheduler:
    """Multiply the rate by ``gamma`` at each of ``fractions`` (0..1) of ``epochs``, after the first epoch at least."""
    return MultiStepLR(optimizer, [max(1, round(fraction * epochs)) for fraction in fractions], gamma)


def cosine(optimizer: Optimizer, epochs: int) -> LRScheduler:
    """Let the rate fall to zero along half a cosine over ``epochs``."""
    return CosineAnnealingLR(optimizer, epochs)


def cosine_to_the_last(optimizer: Optimizer, epochs: int) -> LRScheduler:
    """Let the rate fall along half a cosine so that the last of ``epochs`` has a 64th of it.

    The factor of epoch e (from 0) is cos(99 pi e / (200 (epochs - 1))). Source: CODA-Prompt's code.
    """
    return LambdaLR(optimizer, lambda epoch: math.cos(99 * math.pi * epoch / (200 * max(1, epochs - 1))))
