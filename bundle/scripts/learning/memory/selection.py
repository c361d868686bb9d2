"""Which images of a class to keep: pure functions from features [N, d] to the order in which images are kept."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize

from scripts.utils.errors import UserError


def herding(features: Tensor, count: int) -> list[int]:
    """Pick greedily the images whose running mean stays closest to the class mean, on L2-normalised features.

    Source: Rebuffi et al., iCaRL (CVPR 2017), algorithm 4; the class mean is not normalised again.
    """
    vectors = normalize(features.double(), dim=1)
    mean = vectors.mean(0)
    total = torch.zeros_like(mean)
    free = torch.ones(len(vectors), dtype=torch.bool)
    order: list[int] = []
    for kept in range(1, min(count, len(vectors)) + 1):
        distance = (mean - (total + vectors) / kept).norm(dim=1).masked_fill(~free, float("inf"))
        best = int(distance.argmin())
        order.append(best)
        free[best] = False
        total += vectors[best]
    return order


def random(features: Tensor, count: int) -> list[int]:
    """Pick at random (torch's generator, which the trainer seeds)."""
    return torch.randperm(len(features))[:count].tolist()


def closest_to_mean(features: Tensor, count: int) -> list[int]:
    """Pick the images closest to the class mean, on L2-normalised features."""
    vectors = normalize(features.double(), dim=1)
    return (vectors - vectors.mean(0)).norm(dim=1).argsort(stable=True)[:count].tolist()


SELECTIONS: dict[str, Callable[[Tensor, int], list[int]]] = {
    "herding": herding,
    "random": random,
    "closest_to_mean": closest_to_mean,
}


def select(name: str, features: Tensor, count: int) -> list[int]:
    """Return the positions of at most ``count`` images in the order in which they are kept.

    Args:
        name: a name in :data:`SELECTIONS`.
        features: features of one class, [N, d].
        count: how many to keep.
    """
    check_selection(name)
    return SELECTIONS[name](features, count)


def check_selection(name: str) -> None:
    """Refuse an unknown selection.

    Raises:
        UserError: when ``name`` is not in :data:`SELECTIONS`.
    """
    if name not in SELECTIONS:
        raise UserError(f"unknown selection '{name}': choose one of {', '.join(SELECTIONS)} (key 'selection')")
