"""Merging strategies: pure functions from the tensors of several adapters to one, in one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from scripts.errors import UserError

Strategy = Callable[[Sequence[Tensor]], Tensor]


def average(tensors: Sequence[Tensor]) -> Tensor:
    """Return the uniform mean. Source: DynaMMo (arXiv 2404.14099), merging."""
    return torch.stack(list(tensors)).mean(0)


STRATEGIES: dict[str, Strategy] = {"average": average}


def check_strategy(name: str) -> None:
    """Refuse an unknown strategy.

    Raises:
        UserError: when ``name`` is not in :data:`STRATEGIES`.
    """
    if name not in STRATEGIES:
        raise UserError(f"unknown merging strategy '{name}': choose one of {', '.join(STRATEGIES)} (key 'merging')")


def merge(name: str, states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Merge the state dicts of modules of one shape, an entry at a time.

    Floating entries (weights, BatchNorm's statistics, the scale) go through the strategy; integer ones
    (``num_batches_tracked``), which no forward pass reads, are the newest module's.

    Raises:
        UserError: for an unknown strategy.
    """
    check_strategy(name)
    strategy = STRATEGIES[name]
    return {
        key: strategy([state[key] for state in states]) if newest.is_floating_point() else newest.clone()
        for key, newest in states[-1].items()
    }
