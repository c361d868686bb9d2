"""Merging strategies: pure functions from the tensors of several adapters to one, in one table."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from scripts.errors import UserError

Statistics = Mapping[str, Mapping[str, Tensor]]
"""What was measured of a task's adapters: of each kind (``samples``, ``fisher``, ``gram``) a tensor an entry."""


class HasStatistics(Protocol):
    """Keeps what was measured."""

    @property
    def tasks(self) -> Sequence[Statistics]:
        """One a task, in the order learnt."""
        ...


BASES = ("first", "start")
BATCHNORMS = ("average", "pooled", "recalibrated")
RIDGE = 1e-6  # of RegMean's mean diagonal: inputs that no image has (dead channels) leave the plain mean
PARALLEL = 1e-4  # vectors whose angle's sine is below it are interpolated along a line


def average(vectors: Sequence[Tensor]) -> Tensor:
    """Return the uniform mean. Source: DynaMMo (arXiv 2404.14099), merging."""
    return torch.stack(list(vectors)).mean(0)


def weighted_average(vectors: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """Return the weighted mean; where all weights are 0, the plain one.

    With the numbers of images this is the mean by samples; with the diagonals of the Fisher information it is Matena
    and Raffel, Merging models with Fisher-weighted averaging (NeurIPS 2022), equation 4.

    Args:
        vectors: one a task, of one shape.
        weights: not negative, one a task, of that shape or a single number.
    """
    stacked = torch.stack(list(vectors))
    scales = torch.stack([weight.to(stacked).expand_as(stacked[0]) for weight in weights])
    total = scales.sum(0)
    mean = (scales * stacked).sum(0) / torch.where(total > 0, total, torch.ones_like(total))
    return torch.where(total > 0, mean, stacked.mean(0))


def trim(vector: Tensor, density: float) -> Tensor:
    """Keep the entries of largest magnitude, a share ``density`` of them, rounded up; the others become 0."""
    flat = vector.flatten()
    kept = flat.abs().topk(math.ceil(density * flat.numel())).indices
    return torch.zeros_like(flat).scatter(0, kept, flat[kept]).view_as(vector)


def ties(vectors: Sequence[Tensor], density: float) -> Tensor:
    """Trim each vector, elect each entry's sign by its sum, and average those that agree with it.

    Source: Yadav et al., TIES-merging (NeurIPS 2023), algorithm 1, an entry of the state dict at a time; its scale
    lambda is 1. An entry whose sum is 0 becomes 0.
    """
    trimmed = torch.stack([trim(vector, density) for vector in vectors])
    agree = (trimmed.sign() == trimmed.sum(0).sign()) & (trimmed != 0)
    return (trimmed * agree).sum(0) / agree.sum(0).clamp(min=1)


def dare(vectors: Sequence[Tensor], density: float, generator: torch.Generator) -> Tensor:
    """Keep each number with probability ``density``, divide it by that, and average: unbiased.

    Source: Yu et al., Language models are Super Mario (DARE, ICML 2024), equation 1; their p is 1 - ``density``.
    """
    stacked = torch.stack(list(vectors))
    kept = torch.rand(stacked.shape, generator=generator) < density
    return (stacked * kept.to(stacked) / density).mean(0)


def magmax(vectors: Sequence[Tensor]) -> Tensor:
    """Take each number from the vector where its magnitude is largest (of equal ones, from the oldest).

    Source: Marczak et al., MagMax (ECCV 2024), equation 2; its scale lambda is 1.
    """
    stacked = torch.stack(list(vectors))
    return stacked.gather(0, stacked.abs().argmax(0, keepdim=True)).squeeze(0)


def slerp(first: Tensor, second: Tensor, share: float) -> Tensor:
    """Go from ``first`` a ``share`` (0..1) of the arc towards ``second``; on a line where there is no one arc.

    Source: Shoemake, Animating rotation with quaternion curves (SIGGRAPH 1985).
    """
    lengths = first.norm() * second.norm()
    cosine = ((first * second).sum() / lengths).clamp(-1, 1) if lengths > 0 else torch.ones(())
    angle = float(torch.acos(cosine.double()))
    if math.sin(angle) < PARALLEL:
        return torch.lerp(first, second, share)
    return (math.sin((1 - share) * angle) * first + math.sin(share * angle) * second) / math.sin(angle)


def slerp_in_order(vectors: Sequence[Tensor]) -> Tensor:
    """Fold the vectors in one by one, oldest first: the k-th turns what there is 1 / k of the arc towards it."""
    merged = vectors[0].clone()
    for count, vector in enumerate(islice(vectors, 1, None), start=2):
        merged = slerp(merged, vector, 1 / count)
    return merged


def regmean(vectors: Sequence[Tensor], grams: Sequence[Tensor]) -> Tensor:
    """Return the weight whose outputs are closest to those of all tasks on their own inputs, by least squares.

    Source: Jin et al., Dataless knowledge fusion (RegMean, ICLR 2023), equation 2, without shrinking the Gram matrices
    (their alpha is 1).

    Args:
        vectors: weights of a layer, [out, in, ...] or, transposed, [in, out, ...].
        grams: one a task, inputs times inputs summed over the images, of the weight's shape twice over, with 1 for the
            outputs: [1, in, ..., 1, in, ...].
    """
    shape = vectors[0].shape
    single = grams[0].shape[: len(shape)]
    axes = [axis for axis in range(len(shape)) if single[axis] > 1]
    axes += [axis for axis in range(len(shape)) if single[axis] == 1]
    ordered = [vector.permute(axes) for vector in vectors]
    size = math.prod(single)
    matrices = [gram.to(vectors[0].device).double().reshape(size, size) for gram in grams]
    values = [vector.double().reshape(size, -1) for vector in ordered]
    total = torch.stack(matrices).sum(0)
    ridge = RIDGE * total.diagonal().mean() + torch.finfo(torch.double).tiny
    right = torch.stack([gram @ value for gram, value in zip(matrices, values, strict=True)]).sum(0)
    right += ridge * torch.stack(values).mean(0)
    solved = torch.linalg.solve(total + ridge * torch.eye(size).to(total), right)
    inverse = [axes.index(axis) for axis in range(len(shape))]
    return solved.reshape(ordered[0].shape).permute(inverse).to(vectors[0].dtype)


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


@dataclass(frozen=True)
class Extras:
    """What a strategy may read beside the vectors of an entry.

    Attributes:
        weights: the statistic that it names, one a task; [] where it names none.
        density: share of the numbers that TIES and DARE keep.
        generator: of DARE's choice.
    """

    weights: Sequence[Tensor]
    density: float
    generator: torch.Generator


@dataclass(frozen=True)
class Strategy:
    """A row of the table.

    Attributes:
        function: from the tensors of the tasks, oldest first, to one.
        statistic: the kind of :data:`Statistics` that it reads; entries without one are averaged.
        relative: whether it reads task vectors, relative to a base; the others give the same from any base.
        running: whether only the mean so far is kept of the tasks before.
    """

    function: Callable[[Sequence[Tensor], Extras], Tensor]
    statistic: str | None = None
    relative: bool = False
    running: bool = False


STRATEGIES: dict[str, Strategy] = {
    "average": Strategy(lambda vectors, extras: average(vectors)),
    "running_mean": Strategy(lambda vectors, extras: average(vectors), running=True),
    "samples": Strategy(lambda vectors, extras: weighted_average(vectors, extras.weights), "samples"),
    "fisher": Strategy(lambda vectors, extras: weighted_average(vectors, extras.weights), "fisher"),
    "ties": Strategy(lambda vectors, extras: ties(vectors, extras.density), relative=True),
    "dare": Strategy(lambda vectors, extras: dare(vectors, extras.density, extras.generator), relative=True),
    "magmax": Strategy(lambda vectors, extras: magmax(vectors), relative=True),
    "slerp": Strategy(lambda vectors, extras: slerp_in_order(vectors), relative=True),
    "regmean": Strategy(lambda vectors, extras: regmean(vectors, extras.weights), "gram"),
}


@dataclass(frozen=True)
class MergingOptions:
    """How adapters are merged.

    Args:
        strategy: a key of :data:`STRATEGIES`.
        base: what task vectors are relative to: the ``first`` task's adapters (ACMap, arXiv 2412.18219), or the
            ``start`` of these, before they learnt.
        batchnorm: running statistics are the ``average``, ``pooled`` (the mixture's, weighted by images), or
            ``recalibrated`` on images after the merge (averaged until then).
        density: share of the numbers that TIES and DARE keep, above 0 and at most 1.
        seed: of DARE's choice.
        statistics: has what the strategy reads beside the adapters; ``None``: it reads nothing else.

    Raises:
        UserError: for an unknown strategy, base or BatchNorm rule, or a density out of range.
    """

    strategy: str = "average"
    base: str = "first"
    batchnorm: str = "average"
    density: float = 0.2
    seed: int = 0
    statistics: HasStatistics | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        check_strategy(self.strategy)
        for name, value, known in (
            ("base", self.base, BASES),
            ("batchnorm", self.batchnorm, BATCHNORMS),
        ):
            if value not in known:
                raise UserError(f"unknown '{value}': choose one of {', '.join(known)} (key 'merging#{name}')")
        if not 0 < self.density <= 1:
            raise UserError(f"a density of {self.density}: use more than 0 and at most 1 (key 'merging#density')")


def check_strategy(name: str) -> None:
    """Refuse an unknown strategy.

    Raises:
        UserError: when ``name`` is not in :data:`STRATEGIES`.
    """
    if name not in STRATEGIES:
        raise UserError(
            f"unknown merging strategy '{name}': choose one of {', '.join(STRATEGIES)} (key 'merging#strategy')"
        )


def needed_statistics(strategy: str, batchnorm: str) -> list[str]:
    """Return the kinds of :data:`Statistics` that merging reads.

    Raises:
        UserError: for an unknown strategy.
    """
    check_strategy(strategy)
    kinds = {STRATEGIES[strategy].statistic, "samples" if batchnorm == "pooled" else None}
    return sorted(kind for kind in kinds if kind is not None)


def merge(
    states: Sequence[Mapping[str, Tensor]],
    options: MergingOptions | None = None,
    base: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Merge the state dicts of modules of one shape, an entry at a time.

    Weights go through the strategy, BatchNorm's running statistics through their own rule; integer entries
    (``num_batches_tracked``), which no forward pass reads, are the newest module's.

    Args:
        states: one a task, oldest first.
        options: how; ``None``: the average.
        base: what a ``relative`` strategy takes task vectors from; ``None``: the first of the states.

    Raises:
        UserError: where a statistic was not measured.
    """
    options = options or MergingOptions()
    strategy = STRATEGIES[options.strategy]
    statistics = [] if options.statistics is None else options.statistics.tasks[: len(states)]
    for needed in needed_statistics(options.strategy, options.batchnorm):
        if len(statistics) < len(states) or any(needed not in task for task in statistics):
            raise UserError(
                f"merging by '{options.strategy}' with BatchNorm '{options.batchnorm}' needs '{needed}' of every task, "
                "which an earlier one was learnt without: choose another strategy (key 'merging#strategy'), or learn "
                "all tasks with it"
            )
    base = states[0] if base is None else base
    measured = [task[strategy.statistic] for task in statistics] if strategy.statistic else []
    generator = torch.Generator().manual_seed(options.seed)
    merged: dict[str, Tensor] = {}
    for key, newest in states[-1].items():
        tensors = [state[key] for state in states]
        weights = [task[key] for task in measured if key in task]
        if not newest.is_floating_point():
            merged[key] = newest.clone()
        elif key.endswith(("running_mean", "running_var")) or len(weights) < len(measured):
            merged[key] = average(tensors)
        else:
            origin = base[key] if strategy.relative else torch.zeros_like(newest)
            vectors = [tensor - origin for tensor in tensors]
            merged[key] = origin + strategy.function(vectors, Extras(weights, options.density, generator))
    if options.batchnorm == "pooled":
        _pool(merged, states, statistics)
    return merged


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
