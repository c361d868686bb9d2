"""Ways of merging, a row each: sparsify every vector, find a consensus, reduce them to one. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import ClassVar

import torch
from torch import Tensor

from scripts.model.networks.registry import Registry
from scripts.utils.errors import UserError

RIDGE = 1e-6  # of RegMean's mean diagonal: inputs that no image has (dead channels) leave the plain mean
PARALLEL = 1e-4  # vectors whose angle's sine is below it are interpolated along a line


@dataclass(frozen=True)
class Row:
    """A way of merging with its settings: what a config names.

    Attributes:
        statistic: the kind of :data:`scripts.model.networks.merging.Statistics` that it reads; entries without one are
            averaged.
        relative: whether it reads task vectors, relative to a base; the others give the same from any base.
        running: whether only the mean so far is kept of the tasks before.
    """

    statistic: ClassVar[str | None] = None
    relative: ClassVar[bool] = False
    running: ClassVar[bool] = False

    def seeded(self, seed: int) -> Row:
        """Return the same with another seed, where it draws."""
        return self

    def generator(self) -> torch.Generator | None:
        """Return what it draws from; ``None`` where it does not."""
        return None

    def sparsify(self, vector: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return what counts of a task's vector."""
        return vector

    def consensus(self, vectors: Tensor) -> Tensor | None:
        """Return which numbers count, of the shape of ``vectors`` [T, ...]; ``None``: all."""
        return None

    def reduce(self, vectors: Tensor, agree: Tensor | None, weights: Sequence[Tensor]) -> Tensor:
        """Return one vector for all: here the mean of the numbers that agree, 0 where none does."""
        return vectors.mean(0) if agree is None else (vectors * agree).sum(0) / agree.sum(0).clamp(min=1)

    def __call__(
        self, vectors: Sequence[Tensor], weights: Sequence[Tensor] = (), generator: torch.Generator | None = None
    ) -> Tensor:
        """Merge the tensors of the tasks, oldest first, of one shape.

        Args:
            vectors: one a task.
            weights: the statistic that it reads, one a task.
            generator: of :meth:`generator`; one for all tensors of an adapter.
        """
        kept = torch.stack([self.sparsify(vector, generator) for vector in vectors])
        return self.reduce(kept, self.consensus(kept), weights)


@dataclass(frozen=True)
class Average(Row):
    """The uniform mean. Source: DynaMMo (arXiv 2404.14099), merging."""


@dataclass(frozen=True)
class RunningMean(Row):
    """The uniform mean, of which only the mean so far is kept between tasks."""

    running = True


@dataclass(frozen=True)
class BySamples(Row):
    """The mean weighted by the numbers of images."""

    statistic = "samples"

    def reduce(self, vectors: Tensor, agree: Tensor | None, weights: Sequence[Tensor]) -> Tensor:
        return weighted_average(vectors, weights)


@dataclass(frozen=True)
class ByFisher(BySamples):
    """The mean weighted by the diagonals of the Fisher information.

    Source: Matena and Raffel, Merging models with Fisher-weighted averaging (NeurIPS 2022), equation 4.
    """

    statistic = "fisher"


@dataclass(frozen=True)
class Sparse(Row):
    """A row that keeps a share of the numbers.

    Args:
        density: the share, above 0 and at most 1.

    Raises:
        UserError: for a density out of range.
    """

    relative = True
    density: float = 0.2

    def __post_init__(self) -> None:
        """Check the value."""
        if not 0 < self.density <= 1:
            raise UserError(f"a density of {self.density}: use more than 0 and at most 1 (key 'merging#row#density')")


@dataclass(frozen=True)
class Ties(Sparse):
    """Trim each vector, elect each entry's sign by its sum, and average those that agree with it.

    Source: Yadav et al., TIES-merging (NeurIPS 2023), algorithm 1, an entry of the state dict at a time; its scale
    lambda is 1. An entry whose sum is 0 becomes 0.
    """

    def sparsify(self, vector: Tensor, generator: torch.Generator | None) -> Tensor:
        return trim(vector, self.density)

    def consensus(self, vectors: Tensor) -> Tensor | None:
        return (vectors.sign() == vectors.sum(0).sign()) & (vectors != 0)


@dataclass(frozen=True)
class Dare(Sparse):
    """Keep each number with probability ``density``, divide it by that, and average: unbiased.

    Source: Yu et al., Language models are Super Mario (DARE, ICML 2024), equation 1; their p is 1 - ``density``.

    Args:
        density: the probability.
        seed: of the choice.
    """

    seed: int = 0

    def seeded(self, seed: int) -> Row:
        return replace(self, seed=seed)

    def generator(self) -> torch.Generator | None:
        return torch.Generator().manual_seed(self.seed)

    def sparsify(self, vector: Tensor, generator: torch.Generator | None) -> Tensor:
        kept = torch.rand(vector.shape, generator=generator) < self.density
        return vector * kept.to(vector) / self.density


@dataclass(frozen=True)
class MagMax(Row):
    """Take each number from the vector where its magnitude is largest (of equal ones, from the oldest).

    Source: Marczak et al., MagMax (ECCV 2024), equation 2; its scale lambda is 1.
    """

    relative = True

    def reduce(self, vectors: Tensor, agree: Tensor | None, weights: Sequence[Tensor]) -> Tensor:
        return vectors.gather(0, vectors.abs().argmax(0, keepdim=True)).squeeze(0)


@dataclass(frozen=True)
class Slerp(Row):
    """Fold the vectors in one by one, oldest first: the k-th turns what there is 1 / k of the arc towards it."""

    relative = True

    def reduce(self, vectors: Tensor, agree: Tensor | None, weights: Sequence[Tensor]) -> Tensor:
        merged = vectors[0].clone()
        for count, vector in enumerate(islice(vectors, 1, None), start=2):
            merged = slerp(merged, vector, 1 / count)
        return merged


@dataclass(frozen=True)
class RegMean(Row):
    """The weight whose outputs are closest to those of all tasks on their own inputs."""

    statistic = "gram"

    def reduce(self, vectors: Tensor, agree: Tensor | None, weights: Sequence[Tensor]) -> Tensor:
        return regmean(vectors, weights)


ROWS: Registry[type[Row]] = Registry("way of merging", "merging#row")
ROWS["average"] = Average
ROWS["running_mean"] = RunningMean
ROWS["samples"] = BySamples
ROWS["fisher"] = ByFisher
ROWS["ties"] = Ties
ROWS["dare"] = Dare
ROWS["magmax"] = MagMax
ROWS["slerp"] = Slerp
ROWS["regmean"] = RegMean


def weighted_average(vectors: Sequence[Tensor] | Tensor, weights: Sequence[Tensor]) -> Tensor:
    """Return the weighted mean; where all weights are 0, the plain one.

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


def regmean(vectors: Sequence[Tensor] | Tensor, grams: Sequence[Tensor]) -> Tensor:
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
