"""The network that leaves the project: backbone (or backbones), merged adapters and head, without tasks or memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import torch
from monai.networks.layers import Pool
from torch import Tensor, nn

from scripts.errors import UserError
from scripts.json_files import TEXT, TEXTS, read_json
from scripts.networks.adapters import LOW_RANK, AdaptedBlock, check_adapter, make_adapter
from scripts.networks.backbones import MINIMUM_MAP, black_image, load_into, load_weights, segments, spatial_dims
from scripts.networks.heads import LEVELS, RECTIFIED, SIGNED, find_head
from scripts.networks.low_rank import LowRankBlock
from scripts.run_config import no_model

PLAIN = "backbone"  # the branch without adapters
WHOLE = "backbone"  # the adapter of a network that adds a whole backbone a task
RANK, SCALE = 8, 0.25  # of low-rank adapters
VARIANCE = 1e-6  # added before the square root, which has no slope at 0
PROBE = 32  # side of the image whose maps are measured: a multiple of every stride


def measured(name: str, sites: Sequence[str] | None, signed: bool) -> list[torch.Size]:
    """Return the shapes of the maps before each site and of the last one, for an image of side :data:`PROBE`.

    Nothing is computed: torch's meta device knows shapes alone.
    """
    with torch.device("meta"):
        stem, parts = segments(name, sites, signed)
        shapes = [stem.eval()(black_image(stem, PROBE)).shape]
        for part in parts.values():
            shapes.append(part.eval()(torch.empty(shapes[-1])).shape)
    return shapes


def spread(maps: list[Tensor], variance: float = VARIANCE) -> Tensor:
    """Return the mean and the standard deviation over the image of each map, [B, 2 (c_1 + c_2 + ...)]."""
    parts: list[Tensor] = []
    for level in maps:
        places = level.flatten(2)
        parts += [places.mean(2), (places.var(2, unbiased=False) + variance).sqrt()]
    return torch.cat(parts, 1)


class AdaptedBackbone(nn.Module):
    """A backbone whose segments can each have an adapter a branch; the stem is computed once for all branches.

    Args:
        name: a name in :data:`scripts.networks.backbones.SITES`.
        sites: blocks an adapter stands before; ``None``: the published ones.
        adapter: a name in :data:`scripts.networks.adapters.ADAPTERS`, or ``lora``: low-rank changes of the layers from
            the first site on; ``None``: no adapters.
        branches: the branches that a forward pass goes through.
        reads: what a head reads: the mean of the last map (:data:`~scripts.networks.heads.RECTIFIED`), the same
            without the last activation (:data:`~scripts.networks.heads.SIGNED`), so that it has both signs, or the
            levels before it (:data:`~scripts.networks.heads.LEVELS`), which stand behind that mean in the features.
        rank: of low-rank adapters.
        scale: of low-rank adapters; see :class:`scripts.networks.low_rank.LowRankChange`.

    Raises:
        UserError: for an unknown backbone, site or adapter, or a single site where levels are read.
    """

    def __init__(
        self,
        name: str,
        sites: Sequence[str] | None = None,
        adapter: str | None = None,
        branches: Sequence[str] = (PLAIN,),
        reads: str = RECTIFIED,
        rank: int = RANK,
        scale: float = SCALE,
    ) -> None:
        super().__init__()
        if adapter is not None:
            check_adapter(adapter)  # now, not once the backbone is trained
        self.stem, parts = segments(name, sites, reads == SIGNED)
        make_block = partial(LowRankBlock, rank=rank, scale=scale) if adapter == LOW_RANK else AdaptedBlock
        self.blocks = nn.ModuleDict({site.replace(".", "_"): make_block(part) for site, part in parts.items()})
        self.name = name
        self.sites = tuple(parts)
        self.adapter = adapter
        shapes = measured(name, sites, reads == SIGNED)
        self.spatial_dims = spatial_dims(name)
        *self.channels, self.last_width = [shape[1] for shape in shapes]
        self.levels = reads == LEVELS
        if self.levels and len(parts) < 2:
            raise UserError(
                "head 'levels' reads the maps before the last site: give two or more (key 'network_def#sites')"
            )
        self.head_width = 2 * sum(self.channels[1:]) if self.levels else self.last_width
        self.width = self.last_width + (self.head_width if self.levels else 0)
        self.strides = [PROBE // shape[-1] for shape in shapes[:-1]]
        self.pool = nn.Sequential(Pool[Pool.ADAPTIVEAVG, self.spatial_dims](1), nn.Flatten())
        self.branches = list(branches)
        for branch in branches:
            self.add_branch(branch)
        self.eval()  # until a stage trains it

    def add_branch(self, branch: str) -> None:
        """Give every site a new adapter called ``branch`` (none where the backbone is not adapted)."""
        if self.adapter is None or branch == PLAIN:
            return
        reference = next(self.parameters())
        for block, channels in zip(self.blocks.values(), self.channels, strict=True):
            assert isinstance(block, AdaptedBlock)
            block.adapters[branch] = (
                block.make_adapter(branch)
                if isinstance(block, LowRankBlock)
                else make_adapter(self.adapter, channels, self.spatial_dims)
            ).to(reference)

    def folded(self) -> dict[str, Tensor]:
        """Return the state of the plain backbone that equals this one: the branch's changes are added to its weights.

        Raises:
            UserError: when the adapters are not linear, or several branches are in use.
        """
        if self.adapter not in (None, LOW_RANK):
            raise UserError(
                f"adapter {self.adapter} does not fold into the backbone, since it is not linear (it has ReLUs): use "
                f"'{LOW_RANK}' (key 'adapter#kind')"
            )
        if len(self.branches) > 1:
            raise UserError(f"{len(self.branches)} sets of adapters do not fold into one backbone: merge them first")
        plain = {key: value for key, value in self.state_dict().items() if ".adapters." not in key}
        for site, block in self.blocks.items():
            changed = block.weights(self.branches[0]) if isinstance(block, LowRankBlock) else {}
            plain |= {f"blocks.{site}.block.{name}": weight.detach() for name, weight in changed.items()}
        return plain

    def added(self) -> dict[str, list[nn.Module]]:
        """Return what was added for each branch, by name: an adapter a site."""
        blocks: list[Any] = list(self.blocks.values())
        names = list(blocks[0].adapters) if blocks else []
        return {name: [block.adapters[name] for block in blocks] for name in names}

    def branch(self, name: str) -> nn.ModuleDict:
        """Return the adapters of a branch, by site."""
        blocks: dict[str, Any] = dict(self.blocks.items())
        return nn.ModuleDict({site: block.adapters[name] for site, block in blocks.items() if name in block.adapters})

    def mergeable(self, branch: str) -> dict[str, Tensor]:
        """Return what a merging strategy reads of a branch, under the names of the merged adapters' entries."""
        blocks: dict[str, Any] = dict(self.blocks.items())
        return {f"{site}.{key}": value for site, own in blocks.items() for key, value in own.mergeable(branch).items()}

    def last_read(self) -> str:
        """Return the name of the last block whose map the head reads."""
        return list(self.blocks)[-2 if self.levels else -1]

    def drop_branches(self, names: Iterable[str]) -> None:
        """Remove the adapters of some branches."""
        blocks: list[Any] = list(self.blocks.values())
        for block in blocks:
            for name in names:
                del block.adapters[name]

    def base(self) -> list[nn.Module]:
        """Return what an adapter is added to: the backbone itself."""
        blocks: list[Any] = list(self.blocks.values())
        return [self.stem, *(block.block for block in blocks)]

    def load_pretrained(self, weights: str, sha256: str | None = None) -> None:
        """Load pretrained weights by name or by file; see :func:`scripts.networks.backbones.load_weights`."""
        parts = {site: block.block for site, block in zip(self.sites, self.blocks.values(), strict=True)}
        load_into(self.name, self.stem, parts, load_weights(self.name, weights, sha256))  # type: ignore[arg-type]

    def check_image_size(self, size: int) -> None:
        """Refuse images too small for the adapters.

        Raises:
            UserError: names the site whose feature map has a side below 3, and the minimum.
        """
        if self.adapter in (None, LOW_RANK):
            return
        for site, stride in reversed(list(zip(self.sites, self.strides, strict=True))):  # the last needs most
            side = math.ceil(size / stride)  # every convolution of a backbone is padded
            if side < MINIMUM_MAP:
                shown, needed = (" x ".join([str(number)] * self.spatial_dims) for number in (side, MINIMUM_MAP))
                raise UserError(
                    f"image_size {size} is too small for {self.name}: the map before {site} has {shown} pixels, an "
                    f"adapter needs {needed}; use at least {(MINIMUM_MAP - 1) * stride + 1} (key 'image_size')"
                )

    def features_and_maps(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Map images [B, 3, H, W], or volumes [B, 1, D, H, W], to features and maps.

        Returns:
            The features of every branch, [B, R, d], and the maps after each segment of the newest, [B, c, H, W] each.
        """
        return self.above_stem(self.below_adapters(images))

    def below_adapters(self, images: Tensor) -> Tensor:
        """Map images to the map before the first adapter, [B, c, H, W], the same for every branch."""
        return self.stem(self._channels_last(images))

    def above_stem(self, stem: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Map the maps of :meth:`below_adapters` to what :meth:`features_and_maps` returns."""
        stem = self._channels_last(stem)
        features: list[Tensor] = []
        maps: list[Tensor] = []
        for branch in self.branches:
            maps = []
            x = stem
            for block in self.blocks.values():
                x = block(x, branch)
                maps.append(x)
            features.append(self.pool(x))
            if self.levels:
                features[-1] = torch.cat([features[-1], spread(maps[:-1])], 1)
        return torch.stack(features, 1), maps

    def _channels_last(self, x: Tensor) -> Tensor:
        """Lay the channels of a pixel together: a CPU convolves these up to 1.6 times faster."""
        return x.contiguous(memory_format=torch.channels_last) if self.spatial_dims == 2 else x

    def forward(self, images: Tensor) -> Tensor:
        """Map images [B, 3, H, W], or volumes [B, 1, D, H, W], to the features of every branch, [B, R, d]."""
        return self.features_and_maps(images)[0]


class ExpandableBackbone(nn.Module):
    """A backbone a branch, all of them passed through; a new one starts as a copy of the newest.

    Source: Yan et al., DER (CVPR 2021), section 3.2, without pruning.

    Args:
        name: a name in :data:`scripts.networks.backbones.SITES`.
        sites: as of :class:`AdaptedBackbone`; nothing is added there.
        branches: the names of the backbones.
    """

    def __init__(self, name: str, sites: Sequence[str] | None = None, branches: Sequence[str] = (PLAIN,)) -> None:
        super().__init__()
        first = AdaptedBackbone(name, sites)
        self.name = name
        self.sites = first.sites
        self.adapter = WHOLE
        self.width = self.last_width = self.head_width = first.width
        self.branches = list(branches)
        self.backbones = nn.ModuleDict({self.branches[0]: first})
        for branch in self.branches[1:]:
            self.add_branch(branch)

    def add_branch(self, branch: str) -> None:
        """Add a backbone called ``branch``, a copy of the newest."""
        self.backbones[branch] = deepcopy(self._newest())

    def added(self) -> dict[str, list[nn.Module]]:
        """Return what was added for each branch, by name: a backbone; the first was there from the start."""
        return {name: [backbone] for name, backbone in list(self.backbones.items())[1:]}

    def base(self) -> list[nn.Module]:
        """Return the newest backbone: the only one that still learns."""
        return [self._newest()]

    def load_pretrained(self, weights: str, sha256: str | None = None) -> None:
        """Load pretrained weights into the newest backbone; see :meth:`AdaptedBackbone.load_pretrained`."""
        self._newest().load_pretrained(weights, sha256)

    def check_image_size(self, size: int) -> None:
        """Take images of any size: there are no adapters."""

    def _newest(self) -> AdaptedBackbone:
        *_, newest = self.backbones.values()
        assert isinstance(newest, AdaptedBackbone)
        return newest

    def features_and_maps(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Map images [B, 3, H, W], or volumes [B, 1, D, H, W], to the features of every backbone and the newest's maps.

        Returns:
            As :meth:`AdaptedBackbone.features_and_maps`.
        """
        features: list[Tensor] = []
        maps: list[Tensor] = []
        for backbone in self.backbones.values():
            own, maps = backbone.features_and_maps(images)  # type: ignore[operator]
            features.append(own)
        return torch.cat(features, 1), maps

    def forward(self, images: Tensor) -> Tensor:
        """Map images [B, 3, H, W], or volumes [B, 1, D, H, W], to the features of every backbone, [B, R, d]."""
        return self.features_and_maps(images)[0]


def make_backbone(
    name: str,
    sites: Sequence[str] | None,
    adapter: str | None,
    branches: Sequence[str] = (PLAIN,),
    reads: str = RECTIFIED,
    rank: int = RANK,
    scale: float = SCALE,
) -> AdaptedBackbone | ExpandableBackbone:
    """Make a backbone whose branches are sets of adapters or, where ``adapter`` is :data:`WHOLE`, whole backbones."""
    if adapter == WHOLE:
        return ExpandableBackbone(name, sites, branches)
    return AdaptedBackbone(name, sites, adapter, branches, reads, rank, scale)


class Classifier(nn.Module):
    """A trained network for inference: normalised images [B, 3, H, W] or volumes [B, 1, D, H, W] to logits [B, C].

    Args:
        backbone: a name in :data:`scripts.networks.backbones.SITES`.
        head: a name in :data:`scripts.networks.heads.HEADS`.
        tasks: ``[{"name": ..., "classes": [...]}, ...]`` in the order they were learnt.
        adapter: a name in :data:`scripts.networks.adapters.ADAPTERS`, or ``"backbone"``: a branch is a whole backbone;
            ``None``: no adapters.
        branches: ``["merged"]`` after averaging, one a task for ACL and for whole backbones, ``["backbone"]`` without
            adapters.
        sites: blocks an adapter stands before; ``None``: the published ones.
    """

    def __init__(
        self,
        backbone: str,
        head: str,
        tasks: Sequence[Mapping[str, Any]],
        adapter: str | None = None,
        branches: Sequence[str] = (PLAIN,),
        sites: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        kind = find_head(head)
        self.backbone = make_backbone(backbone, sites, adapter, branches, kind.reads)
        self.head = kind(self.backbone.head_width, [len(task["classes"]) for task in tasks])

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images [B, 3, H, W], or volumes [B, 1, D, H, W], float32, to logits [B, C]."""
        return self.head(self.backbone(images))


NETWORK_KEYS = ("backbone", "head", "tasks", "adapter", "branches", "sites")
_NUMBER = {"type": ["number", "null"], "maximum": 1e6}
_PER_CHANNEL = {"type": "array", "minItems": 1, "items": {"type": "number", "minimum": -1e6, "maximum": 1e6}}
_TASK = {
    "type": "object",
    "required": ["name", "classes"],
    "properties": {"name": TEXT, "classes": {**TEXTS, "minItems": 1, "uniqueItems": True}},
}
_NUMBERS = {"type": ["number", "array"], "items": {"type": ["number", "array"], "items": {"type": "number"}}}
# it becomes part of a config, in which MONAI would run whatever a text says that begins with $, or an entry _target_
_COLOUR = {
    "type": ["object", "null"],
    "properties": {"name": {"type": "string", "pattern": "^[a-z_]+$"}},
    "propertyNames": {"pattern": "^[a-z]"},
    "additionalProperties": _NUMBERS,
}
_MODULE = {"type": "string", "pattern": r"^\w[\w.]*$"}
SCHEMA = {
    "type": "object",
    "required": [*NETWORK_KEYS, "image_size", "mean", "std"],
    "properties": {
        "backbone": TEXT,
        "head": TEXT,
        "tasks": {"type": "array", "minItems": 1, "items": _TASK},
        "adapter": {**TEXT, "type": ["string", "null"]},
        "branches": {"type": "array", "items": _MODULE, "minItems": 1, "maxItems": 1000},
        "sites": {"type": ["array", "null"], "items": _MODULE},
        "image_size": {"type": "integer", "minimum": 1, "maximum": 2048},
        "mean": _PER_CHANNEL,
        "std": {**_PER_CHANNEL, "items": {"type": "number", "exclusiveMinimum": 0, "maximum": 1e6}},
        "presentation": {"type": ["object", "null"]},
        "colour_transform": _COLOUR,
        "temperature": _NUMBER,
        "threshold": _NUMBER,
    },
}
"""What ``network.json`` holds, as a JSON schema; further keys are other rooms'."""


def read_description(path: str) -> dict[str, Any]:
    """Read a ``network.json``.

    Raises:
        UserError: when the file is missing, is not JSON, or lacks or misstates a key.
    """
    if not Path(path).is_file():
        raise no_model(Path(path).parent)
    description: dict[str, Any] = read_json(path, SCHEMA, "restore it or train again")
    names, channels = class_names(description), 3 if spatial_dims(description["backbone"]) == 2 else 1
    if len(set(names)) < len(names):
        raise UserError(f"{path} has a class twice: restore it or train again")
    for key in ("mean", "std"):
        if len(description[key]) not in (1, channels):
            raise UserError(f"{path} has {len(description[key])} numbers as '{key}', not {channels}: restore it")
    return description


def classifier_from(description: Mapping[str, Any]) -> Classifier:
    """Build the (untrained) network that a ``network.json`` describes; further keys are ignored."""
    return Classifier(**{key: description[key] for key in NETWORK_KEYS})


def class_names(description: Mapping[str, Any]) -> list[str]:
    """Return the names of all classes, in the order of the network's outputs."""
    return [name for task in description["tasks"] for name in task["classes"]]
