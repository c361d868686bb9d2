"""Merge the state dicts of several tasks' adapters into one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from scripts.model.networks.merging.rows import Average, Row, weighted_average
from scripts.utils.errors import UserError

Statistics = Mapping[str, Mapping[str, Tensor]]
"""What was measured of a task's adapters: of each kind (``samples``, ``fisher``, ``gram``) a tensor an entry."""


class HasStatistics(Protocol):
    """Keeps what was measured."""

    @property
    def tasks(self) -> Sequence[Statistics]:
        """One a task, in the order learnt."""
        ...


class HasGroups(Protocol):
    """Says which tasks' adapters are merged with which."""

    def of(self, tasks: int) -> list[int]:
        """Return the number of the group of each of so many tasks, from 0."""
        ...


BASES = ("first", "start")
BATCHNORMS = ("average", "pooled", "recalibrated")


@dataclass(frozen=True)
class Merging:
    """How adapters are merged.

    Args:
        row: from the tasks' tensors to one.
        base: what task vectors are relative to: the ``first`` task's adapters (ACMap, arXiv 2412.18219), or the
            ``start`` of these, before they learnt.
        batchnorm: running statistics are the ``average``, ``pooled`` (the mixture's, weighted by images), or
            ``recalibrated`` on images after the merge (averaged until then).
        statistics: has what the row reads beside the adapters; ``None``: it reads nothing else.
        groups: of tasks, whose adapters are merged into a set each; ``None``: into one set.

    Raises:
        UserError: for an unknown base or BatchNorm rule, and groups of which only a mean is kept.
    """

    row: Row = field(default_factory=Average)
    base: str = "first"
    batchnorm: str = "average"
    statistics: HasStatistics | None = None
    groups: HasGroups | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        for name, value, known in (
            ("base", self.base, BASES),
            ("batchnorm", self.batchnorm, BATCHNORMS),
        ):
            if value not in known:
                raise UserError(f"unknown '{value}': choose one of {', '.join(known)} (key 'merging#{name}')")
        if self.groups is not None and self.row.running:
            raise UserError(
                "of a running mean the tasks' own adapters are not kept, so that groups cannot be merged anew: merge "
                "otherwise (key 'merging#row')"
            )

    def needs(self) -> list[str]:
        """Return the kinds of :data:`Statistics` that merging reads."""
        kinds = {self.row.statistic, "samples" if self.batchnorm == "pooled" else None}
        return sorted(kind for kind in kinds if kind is not None)

    def measured(self, tasks: Sequence[int]) -> Sequence[Statistics]:
        """Return the statistics of tasks of these numbers, from 0.

        Raises:
            UserError: where one that it needs was not measured.
        """
        kept = [] if self.statistics is None else self.statistics.tasks
        statistics = [kept[task] for task in tasks if task < len(kept)]
        for needed in self.needs():
            if len(statistics) < len(tasks) or any(needed not in task for task in statistics):
                raise UserError(
                    f"merging by '{type(self.row).__name__}' with BatchNorm '{self.batchnorm}' needs '{needed}' of "
                    "every task, which an earlier one was learnt without: choose another way (key 'merging#row'), or "
                    "learn all tasks with it"
                )
        return statistics


def merge(
    states: Sequence[Mapping[str, Tensor]],
    merging: Merging | None = None,
    base: Mapping[str, Tensor] | None = None,
    tasks: Sequence[int] | None = None,
) -> dict[str, Tensor]:
    """Merge the state dicts of modules of one shape, an entry at a time.

    Weights go through the row, BatchNorm's running statistics through their own rule; integer entries
    (``num_batches_tracked``), which no forward pass reads, are the newest module's.

    Args:
        states: one a task, oldest first.
        merging: how; ``None``: the average.
        base: what a ``relative`` row takes task vectors from; ``None``: the first of the states.
        tasks: the numbers, from 0, of those that the states are of; ``None``: of all.

    Raises:
        UserError: where a statistic was not measured.
    """
    merging = merging or Merging()
    row, statistics = merging.row, merging.measured(range(len(states)) if tasks is None else tasks)
    base = states[0] if base is None else base
    measured = [task[row.statistic] for task in statistics] if row.statistic else []
    generator = row.generator()
    merged: dict[str, Tensor] = {}
    for key, newest in states[-1].items():
        tensors = [state[key] for state in states]
        weights = [task[key] for task in measured if key in task]
        if not newest.is_floating_point():
            merged[key] = newest.clone()
        elif key.endswith(("running_mean", "running_var")) or len(weights) < len(measured):
            merged[key] = Average()(tensors)
        else:
            origin = base[key] if row.relative else torch.zeros_like(newest)
            merged[key] = origin + row([tensor - origin for tensor in tensors], weights, generator)
    if merging.batchnorm == "pooled":
        _pool(merged, states, statistics)
    return merged


def pooled(means: Sequence[Tensor], variances: Sequence[Tensor], samples: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return mean and variance of all tasks' values together, exactly, as those of the mixture.

    Args:
        means: one a task.
        variances: one a task, of its values around its mean (divided by n, not n - 1).
        samples: how many values each stands for.
    """
    mean = weighted_average(means, samples)
    squares = [variance + (own - mean).square() for own, variance in zip(means, variances, strict=True)]
    return mean, weighted_average(squares, samples)


def _pool(merged: dict[str, Tensor], states: Sequence[Mapping[str, Tensor]], statistics: Sequence[Statistics]) -> None:
    """Replace the running statistics by those of all tasks' images together."""
    for mean in [key for key in merged if key.endswith("running_mean")]:
        variance = mean.removesuffix("mean") + "var"
        samples = [task["samples"][mean] for task in statistics]
        means, variances = ([state[key] for state in states] for key in (mean, variance))
        merged[mean], merged[variance] = pooled(means, variances, samples)


@torch.no_grad()
def recalibrate(network: nn.Module, branch: nn.Module, batches: Iterable[Tensor]) -> None:
    """Take the running statistics of ``branch`` anew, each as the mean over the batches.

    Source: Izmailov et al., Stochastic weight averaging (UAI 2018), on BatchNorm.

    Args:
        network: passes the images through the branch.
        branch: the adapters in use.
        batches: normalised images, mixed, each batch of more than one.
    """
    layers = [module for module in branch.modules() if isinstance(module, _BatchNorm)]
    momenta = [layer.momentum for layer in layers]
    network.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the mean over all batches
        layer.train()
    for images in batches:
        network(images)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    network.eval()
