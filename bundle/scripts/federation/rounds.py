"""Rounds of averaging: adapters entry by entry, heads by the names of their classes.

Source: McMahan et al., Communication-efficient learning of deep networks from decentralized data (FedAvg, AISTATS
2017), algorithm 1; a class is averaged over the sites that have it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scripts.utils.errors import UserError

ROWS = ("head.linear.weight", "head.linear.bias")
"""What has a row a class."""


@dataclass(frozen=True)
class Update:
    """What a client has learnt in a round, as MONAI's ``get_weights`` returns it.

    Attributes:
        weights: its state dict.
        classes: names, in the order of its head's rows; MONAI's statistics have it as ``classes``.
        images: how many it has learnt from; there it is called ``images``.
    """

    weights: Mapping[str, Tensor]
    classes: Sequence[str]
    images: int


def average(updates: Sequence[Update]) -> Update:
    """Return the mean of several clients, weighted by images, with the classes of all.

    Raises:
        UserError: when there are none, or their networks differ.
    """
    if not updates:
        raise UserError("no client has sent an update: nothing is averaged")
    total = sum(update.images for update in updates)
    classes = list(dict.fromkeys(name for update in updates for name in update.classes))
    keys = [key for key in updates[0].weights if key not in ROWS]
    for update in updates:
        if {*update.weights} != {*updates[0].weights}:
            other = next(iter({*update.weights} ^ {*updates[0].weights}))
            raise UserError(f"clients have different networks (one alone has {other}): train with one config at all")
    weights = {key: _mean([(update.weights[key], update.images) for update in updates]) for key in keys}
    for key in set(ROWS) & {*updates[0].weights}:
        rows = [
            [
                (update.weights[key][update.classes.index(name)], update.images)
                for update in updates
                if name in update.classes
            ]
            for name in classes
        ]
        weights[key] = torch.stack([_mean(own) for own in rows])
    return Update(weights, classes, total)


def for_client(mean: Update, classes: Sequence[str]) -> dict[str, Tensor]:
    """Return the averaged weights with the rows of a client's own classes, in its order.

    Raises:
        UserError: when the average lacks one of its classes.
    """
    if unknown := [name for name in classes if name not in mean.classes]:
        raise UserError(f"no client has sent the class {', '.join(unknown)}: names must be the same at all sites")
    places = [mean.classes.index(name) for name in classes]
    return {key: value[places] if key in ROWS else value for key, value in mean.weights.items()}


def _mean(weighed: Sequence[tuple[Tensor, int]]) -> Tensor:
    """Return the weighted mean; of counters, which no pass reads, the largest."""
    first = weighed[0][0]
    if not first.is_floating_point():
        return torch.stack([tensor for tensor, _ in weighed]).amax(0)
    total = sum(weight for _, weight in weighed)
    return sum((tensor * (weight / total) for tensor, weight in weighed), torch.zeros_like(first))
