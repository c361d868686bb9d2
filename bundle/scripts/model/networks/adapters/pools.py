"""Pools of prompts: what an image is told beside a frozen transformer, from a query."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, one_hot


class Slice(nn.Module):
    """What a task adds to a pool.

    Args:
        keys: of its n prompts, [n, d], or [n, S, d] where each of S blocks chooses for itself.
        prompts: [n, S, V, L, c]: at S blocks L tokens each, as keys and as values (V = 2), or as they are (V = 1).
        attention: what of the query a prompt looks at, like the keys.
    """

    def __init__(self, keys: Tensor, prompts: Tensor, attention: Tensor | None = None) -> None:
        super().__init__()
        self.keys = nn.Parameter(keys)
        self.prompts = nn.Parameter(prompts)
        if attention is not None:
            self.attention = nn.Parameter(attention)


class PromptPool(nn.Module):
    """The prompts of all tasks, a slice each; it grows a task at a time.

    Args:
        width: of a token, c, and of a query, d.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.slices = nn.ModuleDict()

    @abstractmethod
    def new_slice(self) -> Slice:
        """Start the slice of the next task."""

    def add(self, branch: str) -> None:
        """Add the slice of a task."""
        self.slices[branch] = self.new_slice()

    def shared(self) -> list[nn.Module]:
        """Return what belongs to no task and learns in all of them."""
        return []

    def learning(self, branch: str) -> list[nn.Module]:
        """Return what learns in the task of ``branch``."""
        return [self.slices[branch], *self.shared()]

    @abstractmethod
    def forward(self, query: Tensor, branches: list[str]) -> list[Tensor]:
        """Map queries [B, d] to the prompts [B, V, L, c] of each block, in the blocks' order.

        Args:
            query: of each image.
            branches: whose slices stand to choice.
        """

    @abstractmethod
    def scores(self, query: Tensor, branches: list[str]) -> Tensor:
        """Map queries [N, d] to how well each prompt matches, [N, P], in -1..1."""

    @abstractmethod
    def shares(self, query: Tensor, branches: list[str]) -> Tensor:
        """Map queries [B, d] to the part that each prompt has in what an image is told, [B, P], of sum 1."""

    @abstractmethod
    def penalties(self, query: Tensor, branches: list[str]) -> dict[str, Tensor]:
        """Map queries [B, d] to what is to be small while prompts learn, a number each, whatever B."""


class ChosenPrompts(PromptPool):
    """A pool whose prompts are chosen by the cosine of their keys to the query.

    Source: Wang et al., L2P (CVPR 2022), equations 3-5.

    Args:
        width: of a token and of a query.
        shape: of a prompt: S blocks, V, L tokens.
        first: prompts that the first task adds.
        later: those that a later task adds.
        chosen: how many an image gets.
        pull: weight of the distance of chosen keys to the query.
        majority: whether a batch gets the prompts that most of its images choose.
    """

    def __init__(
        self, width: int, shape: Sequence[int], first: int, later: int, chosen: int, pull: float, majority: bool
    ) -> None:
        super().__init__(width)
        self.shape = list(shape)
        self.first = first
        self.later = later
        self.count = chosen
        self.pull = pull
        self.majority = majority

    def new_slice(self) -> Slice:
        count = self.later if len(self.slices) else self.first
        return Slice(uniform(count, self.width), uniform(count, *self.shape, self.width))

    def learning(self, branch: str) -> list[nn.Module]:
        return [*self.slices.values(), *self.shared()]

    def scores(self, query: Tensor, branches: list[str]) -> Tensor:
        keys: list[Tensor] = []
        for name, own in self.slices.items():
            if name in branches:
                keys.append(own.keys)  # type: ignore[arg-type]
        return normalize(query, dim=1) @ normalize(torch.cat(keys), dim=1).T

    def chosen(self, scores: Tensor) -> Tensor:
        """Return the numbers of each image's prompts, [B, k]."""
        return best(scores, self.count, self.majority)

    def forward(self, query: Tensor, branches: list[str]) -> list[Tensor]:
        prompts: list[Tensor] = []
        for name, own in self.slices.items():
            if name in branches:
                prompts.append(own.prompts)  # type: ignore[arg-type]
        own_prompts = torch.cat(prompts)[self.chosen(self.scores(query, branches))]  # [B, k, S, V, L, c]
        return list(own_prompts.permute(2, 0, 3, 1, 4, 5).flatten(3, 4).unbind(0))

    def shares(self, query: Tensor, branches: list[str]) -> Tensor:
        scores = self.scores(query, branches)
        return one_hot(self.chosen(scores), scores.shape[1]).to(scores).mean(1)

    def penalties(self, query: Tensor, branches: list[str]) -> dict[str, Tensor]:
        scores = self.scores(query, branches)
        return {"pull": self.pull * (1 - scores.gather(1, self.chosen(scores))).sum(1).mean()}


class ExpertPrompts(ChosenPrompts):
    """General prompts for every image, and an expert a task: the newest in training, that of the nearest key else.

    Source: Wang et al., DualPrompt (ECCV 2022), equations 3-5.

    Args:
        width: of a token and of a query.
        general: shape of the general prompts: S blocks, V, L tokens.
        expert: that of an expert.
        order: of the blocks of both, general ones first, in the transformer.
        pull: weight of the distance of an expert's key to the queries of its task.
        majority: see :class:`ChosenPrompts`.
    """

    def __init__(
        self,
        width: int,
        general: Sequence[int],
        expert: Sequence[int],
        order: Sequence[int],
        pull: float,
        majority: bool,
    ) -> None:
        super().__init__(width, expert, 1, 1, 1, pull, majority)
        self.general = General(uniform(*general, width))
        self.order = list(order)

    def new_slice(self) -> Slice:
        fresh = super().new_slice()
        for before in list(self.slices.values())[-1:]:
            fresh.prompts = nn.Parameter(before.get_parameter("prompts").detach().clone())
        return fresh

    def shared(self) -> list[nn.Module]:
        return [self.general]

    def learning(self, branch: str) -> list[nn.Module]:
        return [self.slices[branch], self.general]

    def chosen(self, scores: Tensor) -> Tensor:
        if self.general.training:  # the task of an image is known
            return torch.full([scores.shape[0], 1], scores.shape[1] - 1, device=scores.device)
        return best(scores, 1, self.majority)

    def forward(self, query: Tensor, branches: list[str]) -> list[Tensor]:
        prompts: list[Tensor] = []
        for name, own in self.slices.items():
            if name in branches:
                prompts.append(own.prompts)  # type: ignore[arg-type]
        experts = torch.cat(prompts)[self.chosen(self.scores(query, branches))[:, 0]]  # [B, S, V, L, c]
        everyones = self.general.prompts.unsqueeze(0).repeat(query.shape[0], 1, 1, 1, 1)
        both = list(everyones.unbind(1)) + list(experts.unbind(1))
        return [both[index] for index in self.order]


def best(scores: Tensor, count: int, majority: bool) -> Tensor:
    """Return the numbers of the ``count`` prompts of the highest scores [B, P] of each image, [B, count].

    Args:
        scores: of each prompt for each image.
        count: prompts an image gets.
        majority: whether all images get those that most of them would.
    """
    own = scores.topk(count, 1).indices
    if not majority:
        return own
    votes = one_hot(own, scores.shape[1]).sum((0, 1))
    return votes.topk(count).indices.expand(own.shape[0], count)


class General(nn.Module):
    """Prompts that every image gets.

    Args:
        prompts: [S, V, L, c].
    """

    def __init__(self, prompts: Tensor) -> None:
        super().__init__()
        self.prompts = nn.Parameter(prompts)


class WeightedPrompts(PromptPool):
    """Components of which an image gets a sum, each weighted by how its key matches what it looks at of the query.

    Source: Smith et al., CODA-Prompt (CVPR 2023), equations 3-6.

    Args:
        width: of a token and of a query.
        shape: of a component: S blocks, V, L tokens.
        count: components that a task adds.
        orthogonality: weight of what keeps components apart.
    """

    def __init__(self, width: int, shape: Sequence[int], count: int, orthogonality: float) -> None:
        super().__init__(width)
        self.shape = list(shape)
        self.count = count
        self.orthogonality = orthogonality

    def new_slice(self) -> Slice:
        blocks, *rest = self.shape
        keys, attention = orthogonal(self.count, blocks, self.width), orthogonal(self.count, blocks, self.width)
        prompts = orthogonal(self.count, blocks, rest[0] * rest[1] * self.width)
        return Slice(keys, prompts.view(self.count, blocks, *rest, self.width), attention)

    def weights(self, query: Tensor, branches: list[str]) -> Tensor:
        """Map queries [N, d] to the weight of each component at each block, [N, P, S], in -1..1."""
        weights: list[Tensor] = []
        for name, own in self.slices.items():
            if name in branches:
                seen = normalize(query[:, None, None] * own.attention, dim=3)  # type: ignore[operator]
                weights.append((seen * normalize(own.keys, dim=2)).sum(3))  # type: ignore[arg-type]
        return torch.cat(weights, 1)

    def forward(self, query: Tensor, branches: list[str]) -> list[Tensor]:
        prompts: list[Tensor] = []
        for name, own in self.slices.items():
            if name in branches:
                prompts.append(own.prompts)  # type: ignore[arg-type]
        summed = torch.einsum("bps,psvlc->sbvlc", self.weights(query, branches), torch.cat(prompts))
        return list(summed.unbind(0))

    def scores(self, query: Tensor, branches: list[str]) -> Tensor:
        return self.weights(query, branches).mean(2)

    def shares(self, query: Tensor, branches: list[str]) -> Tensor:
        return normalize(self.weights(query, branches).abs().mean(2), p=1.0, dim=1)

    def penalties(self, query: Tensor, branches: list[str]) -> dict[str, Tensor]:
        total = query.new_zeros(())
        if self.orthogonality:
            for kind in ("keys", "attention", "prompts"):
                every: list[Tensor] = [own.get_parameter(kind) for name, own in self.slices.items() if name in branches]
                vectors = torch.cat(every).flatten(2).transpose(0, 1)  # [S, P, n]
                unit = torch.eye(vectors.shape[1], device=query.device)
                total = total + (vectors @ vectors.transpose(1, 2) - unit).square().mean((1, 2)).sum()
        return {"orthogonality": self.orthogonality * total}


def uniform(*shape: int) -> Tensor:
    """Return numbers drawn evenly from -1..1."""
    return torch.empty(shape).uniform_(-1, 1)


def orthogonal(count: int, blocks: int, width: int) -> Tensor:
    """Return ``count`` vectors of length 1 for each block, at right angles to each other, [count, blocks, width].

    What Gram and Schmidt's procedure makes of normally drawn vectors.
    """
    drawn = torch.randn(blocks, width, count, dtype=torch.double)
    vectors, triangle = torch.linalg.qr(drawn)
    signs = triangle.diagonal(dim1=1, dim2=2).sign().unsqueeze(1)  # as the procedure has them
    return (vectors * signs).permute(2, 0, 1).float().contiguous()
