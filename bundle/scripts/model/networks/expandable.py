"""A whole backbone a task."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from scripts.model.networks.adapted import EVERY, PLAIN, AdaptedBackbone
from scripts.model.networks.adapters import ADAPTERS, AdaptedBlock, Adapter, Place, Prompts
from scripts.model.networks.heads import RECTIFIED
from scripts.model.networks.prompted import PromptedBackbone


@dataclass(frozen=True)
class WholeBackbones(Adapter):
    """A task adds a whole backbone; see :class:`ExpandableBackbone`.

    Args:
        afresh: each starts as the first one did, from pretrained weights or none, rather than as the newest one is.
    """

    kind: ClassVar[str] = "backbone"
    expands: ClassVar[bool] = True
    gathers: ClassVar[bool] = True

    afresh: bool = False

    def inject(self, segment: nn.Sequential, place: Place | None) -> AdaptedBlock:
        return AdaptedBlock(segment)


ADAPTERS[WholeBackbones.kind] = WholeBackbones


class ExpandableBackbone(nn.Module):
    """A backbone a branch, all of them passed through; a new one starts as a copy of the newest, or as the first did.

    Source: Yan et al., DER (CVPR 2021), section 3.2, without pruning.

    Args:
        first: the first backbone.
        adapter: says that it is one a task.
        branches: the names of the backbones.
    """

    def __init__(self, first: AdaptedBackbone, adapter: Adapter, branches: Sequence[str] = (PLAIN,)) -> None:
        super().__init__()
        self.name = first.name
        self.sites = first.sites
        self.levels = first.levels
        self.image_size = first.image_size
        self.spatial_dims = first.spatial_dims
        self.adapter = adapter
        self.width = self.last_width = self.head_width = first.width
        self.branches = list(branches)
        self.backbones = nn.ModuleDict({self.branches[0]: first})
        self.start: list[AdaptedBackbone] = []  # no module of this one: a run that goes on makes it again
        self._keep_start()
        for branch in self.branches[1:]:
            self.add_branch(branch)

    def add_branch(self, branch: str) -> None:
        """Add a backbone called ``branch``."""
        reference = next(self._newest().parameters())
        self.backbones[branch] = deepcopy(self.start[0] if self.start else self._newest()).to(reference.device)

    def added(self) -> dict[str, list[nn.Module]]:
        """Return what was added for each branch, by name: a backbone; the first was there from the start."""
        return {name: [backbone] for name, backbone in list(self.backbones.items())[1:]}

    def learning(self, branch: str) -> list[nn.Module]:
        """Return what was added that learns in the task of ``branch``."""
        return self.added().get(branch, [])

    def passes(self) -> int:
        """Return through how many backbones an image passes."""
        return len(self.branches)

    def base(self) -> list[nn.Module]:
        """Return the newest backbone: the only one that still learns."""
        return [self._newest()]

    def load_pretrained(self, weights: str, sha256: str | None = None) -> None:
        """Load pretrained weights into the newest backbone; see :meth:`AdaptedBackbone.load_pretrained`."""
        self._newest().load_pretrained(weights, sha256)
        self._keep_start()

    def _keep_start(self) -> None:
        if isinstance(self.adapter, WholeBackbones) and self.adapter.afresh:
            self.start = [deepcopy(self._newest())]

    def published_state(self) -> dict[str, Tensor]:
        """Return the newest backbone's weights; see :meth:`AdaptedBackbone.published_state`."""
        return self._newest().published_state()

    def _newest(self) -> AdaptedBackbone:
        *_, newest = self.backbones.values()
        assert isinstance(newest, AdaptedBackbone)
        return newest

    def below_adapters(self, images: Tensor) -> Tensor:
        """Return the images: backbones have nothing in common."""
        return images

    def extras(self, stem: Tensor) -> dict[str, Tensor]:
        """Return nothing beside features."""
        return {}

    def penalties(self, stem: Tensor) -> dict[str, Tensor]:
        """Return nothing that is to be small."""
        return {}

    def above_stem(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Map images [B, 3, H, W], or volumes [B, 1, D, H, W], to the features of every backbone and the newest's maps.

        Returns:
            As :meth:`AdaptedBackbone.above_stem`.
        """
        features: list[Tensor] = []
        maps: list[Tensor] = []
        for backbone in self.backbones.values():
            own, maps = backbone.features_and_maps(images)  # type: ignore[operator]
            features.append(own)
        return torch.cat(features, 1), maps

    def forward(self, images: Tensor) -> Tensor:
        """Map images [B, 3, H, W], or volumes [B, 1, D, H, W], to the features of every backbone, [B, R, d]."""
        return self.above_stem(images)[0]


def make_backbone(
    name: str,
    adapter: Adapter | None,
    sites: Sequence[str] | None = None,
    branches: Sequence[str] = (PLAIN,),
    reads: str = RECTIFIED,
    levels: str | Sequence[str] = EVERY,
    image_size: int = 224,
) -> AdaptedBackbone | ExpandableBackbone:
    """Make a backbone whose branches are sets of adapters, slices of a pool of prompts, or whole backbones."""
    if isinstance(adapter, Prompts):
        return PromptedBackbone(name, adapter, sites, branches, reads, levels, image_size)
    if adapter is not None and adapter.expands:
        first = AdaptedBackbone(name, None, sites, reads=reads, levels=levels, image_size=image_size)
        return ExpandableBackbone(first, adapter, branches)
    return AdaptedBackbone(name, adapter, sites, branches, reads, levels, image_size)
