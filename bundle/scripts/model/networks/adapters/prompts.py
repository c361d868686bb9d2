"""Prompts: what a frozen transformer is told beside an image, chosen by the image itself."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from scripts.model.networks.adapters.adapter import ADAPTERS, AdaptedBlock, Adapter, DividedBlock, Place
from scripts.model.networks.adapters.pools import ChosenPrompts, ExpertPrompts, PromptPool, WeightedPrompts
from scripts.model.networks.backbones import Backbone, Chain, Layout, TransformerBlock
from scripts.utils.errors import UserError

LAST = "last"  # the query is what the backbone says in the end, in a pass of its own
IMAGE, MAJORITY = "image", "majority"  # who chooses
NEEDS = "prompts need a plain vision transformer of torchvision or timm (vit_b_16, timm:deit_tiny_patch16_224, ...)"


class PrefixedBlock(DividedBlock):
    """A segment that starts with a transformer's block whose attention takes a prefix of keys and values."""

    def prompted(self, x: Tensor, prompts: Tensor) -> Tensor:
        """Map tokens [B, N, c] and prompts [B, 2, L, c], keys and values, to tokens [B, N, c]."""
        x = self.block[0].transform(self.block[0].attend_with(x, prompts[:, 0], prompts[:, 1]))  # type: ignore[operator]
        return self.after_first(x)


class PrependedBlock(AdaptedBlock):
    """A segment that takes further tokens before the sequence."""

    def prompted(self, x: Tensor, prompts: Tensor) -> Tensor:
        """Map tokens [B, N, c] and prompts [B, 1, L, c] to tokens [B, L + N, c]."""
        maps: list[Tensor] = self.block(torch.cat([prompts[:, 0], x], 1))
        return maps[-1]


@dataclass(frozen=True)
class Prompts(Adapter):
    """What all kinds of prompts have.

    Args:
        query: what chooses: the backbone's features of the image, from a pass without prompts (:data:`LAST`), or the
            class token after a block, whose name is given: one pass in all, with prompts from the next block on.
        blocks: those that take prompts; ``None``: as many as published, from the first, or from the next to the query.

    Raises:
        UserError: for what cannot be.
    """

    gathers: ClassVar[bool] = True
    published: ClassVar[int] = 1
    query: str = LAST
    blocks: Sequence[str] | None = None

    @abstractmethod
    def pool(self, sites: Sequence[str], width: int) -> PromptPool:
        """Make an empty pool for prompts at these blocks."""

    @property
    def prepended(self) -> int:
        """How many tokens stand before the sequence; 0: prompts are keys and values."""
        return 0

    def wanted(self, following: Sequence[str]) -> Sequence[str]:
        """Return the blocks that take prompts, of those behind the query."""
        return following[: self.published] if self.blocks is None else self.blocks

    def sites(self, backbone: Backbone, chain: Chain) -> Sequence[str]:
        if chain.layout is not Layout.TOKENS:
            raise UserError(f"{NEEDS}, and {backbone.name} is none (key 'backbone')")
        known = list(chain.sites)
        if self.query != LAST and self.query not in known[:-1]:
            raise UserError(
                f"backbone {backbone.name} has no block '{self.query}' with one behind it: give {LAST} or one of "
                f"{', '.join(known[:-1])} (key 'adapter#query')"
            )
        following = known if self.query == LAST else known[known.index(self.query) + 1 :]
        wanted = self.wanted(following)
        for name in wanted:
            if name not in following:
                raise UserError(
                    f"backbone {backbone.name} has no block '{name}' for prompts: choose among {', '.join(following)} "
                    "(key 'adapter#blocks')"
                )
        if not wanted or (self.query != LAST and following[0] not in wanted):
            raise UserError(
                f"prompts must start at {following[0]}, behind the query {self.query} (key 'adapter#blocks')"
            )
        return wanted

    def inject(self, segment: nn.Sequential, place: Place | None) -> AdaptedBlock:
        if place is None:
            return AdaptedBlock(segment)
        if not isinstance(segment[0], TransformerBlock) or not segment[0].takes_prefix:
            raise UserError(f"{NEEDS}, and {place.site} of {place.backbone.name} is none (key 'backbone')")
        return PrependedBlock(segment) if self.prepended else PrefixedBlock(segment)

    def check_start(self, start: str) -> None:
        if start != "previous":
            raise UserError(
                f"prompts '{self.kind}' start as their method says: leave the start out (key "
                "'network_def#adapter_start')"
            )


@dataclass(frozen=True)
class L2P(Prompts):
    """Learning to prompt: a pool of prompts, of which an image gets those with the nearest keys.

    Source: Wang et al., L2P (CVPR 2022); with ``prefix`` at five blocks what CODA-Prompt compares with as L2P++.

    Args:
        pool_size: prompts of the first task.
        added: those that each later task adds.
        length: tokens of a prompt; of a prefix, keys and as many values.
        chosen: prompts that an image gets.
        prefix: whether they are keys and values of blocks, else tokens before the sequence, whose mean a head reads.
        pull: weight of the distance of chosen keys to the query.
        choice: who chooses: each image for itself, or the ``majority`` of its batch, in a comparison alone.
    """

    kind: ClassVar[str] = "l2p"
    pool_size: int = 10
    added: int = 0
    length: int = 10
    chosen: int = 4
    prefix: bool = False
    pull: float = 1.0
    choice: str = IMAGE

    def __post_init__(self) -> None:
        """Check the values."""
        check_choice(self.choice)
        check_counts(length=self.length, chosen=self.chosen, pool_size=self.pool_size)
        if self.pool_size < self.chosen:
            raise UserError(
                f"a pool of {self.pool_size} prompts is smaller than the {self.chosen} that are chosen: raise "
                "'adapter#pool_size' or lower 'adapter#chosen'"
            )

    @property
    def prepended(self) -> int:
        return 0 if self.prefix else self.chosen * self.length

    def sites(self, backbone: Backbone, chain: Chain) -> Sequence[str]:
        wanted = super().sites(backbone, chain)
        if not self.prefix and len(wanted) > 1:
            raise UserError(
                f"tokens stand before one block, not {len(wanted)}: give one (key 'adapter#blocks'), or keys and "
                "values (--adapter#prefix true)"
            )
        return wanted

    def pool(self, sites: Sequence[str], width: int) -> PromptPool:
        shape = (len(sites), 2 if self.prefix else 1, self.length)
        return ChosenPrompts(width, shape, self.pool_size, self.added, self.chosen, self.pull, self.choice == MAJORITY)


@dataclass(frozen=True)
class DualPrompt(Prompts):
    """General prompts for every image at the first blocks, and an expert a task at the next ones.

    Source: Wang et al., DualPrompt (ECCV 2022).

    Args:
        general_blocks: those of the general prompts; ``None``: the first two.
        general_length: keys, and as many values, of the general prompts at a block.
        length: keys, and as many values, of an expert at a block.
        pull: weight of the distance of an expert's key to the queries of its task.
        choice: see :class:`L2P`.
    """

    kind: ClassVar[str] = "dualprompt"
    published: ClassVar[int] = 3
    published_general: ClassVar[int] = 2
    general_blocks: Sequence[str] | None = None
    general_length: int = 5
    length: int = 5
    pull: float = 1.0
    choice: str = IMAGE

    def __post_init__(self) -> None:
        """Check the values."""
        check_choice(self.choice)
        check_counts(general_length=self.general_length, length=self.length)

    def general(self, following: Sequence[str]) -> Sequence[str]:
        """Return the blocks of the general prompts."""
        return following[: self.published_general] if self.general_blocks is None else self.general_blocks

    def experts(self, following: Sequence[str]) -> Sequence[str]:
        """Return the blocks of the experts: the next ones."""
        if self.blocks is not None:
            return self.blocks
        others = [name for name in following if name not in self.general(following)]
        return others[: self.published]

    def wanted(self, following: Sequence[str]) -> Sequence[str]:
        general, experts = self.general(following), self.experts(following)
        if set(general) & set(experts):
            raise UserError(
                "general prompts and experts stand at blocks of their own: name each block once (keys "
                "'adapter#general_blocks', 'adapter#blocks')"
            )
        return [*general, *experts]

    def pool(self, sites: Sequence[str], width: int) -> PromptPool:
        both = [*self.general(sites), *self.experts(sites)]
        counts = (len(self.general(sites)), len(self.experts(sites)))
        shapes = ((counts[0], 2, self.general_length), (counts[1], 2, self.length))
        order = [both.index(site) for site in sites]
        return ExpertPrompts(width, *shapes, order, self.pull, self.choice == MAJORITY)


@dataclass(frozen=True)
class CodaPrompt(Prompts):
    """Components that a task adds, weighted by attention to the query and summed.

    Source: Smith et al., CODA-Prompt (CVPR 2023).

    Args:
        components: that a task adds.
        length: keys, and as many values, at a block.
        orthogonality: weight of what keeps components apart.
    """

    kind: ClassVar[str] = "coda_prompt"
    published: ClassVar[int] = 5
    components: int = 10
    length: int = 4
    orthogonality: float = 0.0

    def __post_init__(self) -> None:
        """Check the values."""
        check_counts(components=self.components, length=self.length)

    def pool(self, sites: Sequence[str], width: int) -> PromptPool:
        if self.components > width:
            raise UserError(
                f"{self.components} components cannot be orthogonal in {width} numbers: use fewer (key "
                "'adapter#components')"
            )
        return WeightedPrompts(width, (len(sites), 2, self.length), self.components, self.orthogonality)


def check_choice(choice: str) -> None:
    """Refuse an unknown chooser.

    Raises:
        UserError: names those there are.
    """
    if choice not in (IMAGE, MAJORITY):
        raise UserError(f"unknown choice '{choice}' of prompts: give {IMAGE} or {MAJORITY} (key 'adapter#choice')")


def check_counts(**counts: int) -> None:
    """Refuse numbers below 1.

    Raises:
        UserError: says which.
    """
    for name, count in counts.items():
        if count < 1:
            raise UserError(f"prompts cannot have {name} {count}: use at least 1 (key 'adapter#{name}')")


def chosen_by_majority(record: Mapping[str, Any] | None) -> bool:
    """Say whether a network's answer to an image depends on those beside it, from its adapter's record."""
    return (record or {}).get("choice") == MAJORITY


for _kind in (L2P, DualPrompt, CodaPrompt):
    ADAPTERS[_kind.kind] = _kind
