"""A backbone with adapters: what is frozen, what each task adds to it, and what a head reads of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from scripts.model.networks.adapters import PLAIN, SHARED, AdaptedBlock, Adapter, Place
from scripts.model.networks.backbones import Chain, Layout, black_image, cut, find_backbone, load_into, module_name
from scripts.model.networks.backbones.weights import is_file_name, read_weights
from scripts.model.networks.heads import LEVELS, RECTIFIED, SIGNED
from scripts.utils.errors import UserError

PUBLISHED, EVERY = "published", "every"  # which levels
VARIANCE = 1e-6  # added before the square root, which has no slope at 0


class Shapes(NamedTuple):
    """What a backbone makes of one image.

    Attributes:
        before: channels and side of the map before each cut.
        maps: channels of the maps after the stem, in order; the last one is pooled.
        width: of the features.
    """

    before: list[tuple[int, int]]
    maps: list[int]
    width: int


@torch.no_grad()
def measured(chain: Chain, stem: nn.Module, segments: Mapping[str, nn.Module], side: int) -> Shapes:
    """Measure a backbone with one black image.

    Args:
        chain: what it was cut from.
        stem: see :func:`scripts.model.networks.backbones.cut`.
        segments: see there.
        side: of the image.
    """
    places = chain.places()
    image = black_image(nn.ModuleList([stem, *segments.values()]), side)
    x = stem.eval()(image)
    before: list[tuple[int, int]] = []
    maps: list[int] = []
    for segment in segments.values():
        at = x if x is image else places(x)
        before.append((at.shape[1], at.shape[-1]))
        own = segment.eval()(x)
        maps += [places(level).shape[1] for level in own]
        x = own[-1]
    return Shapes(before, maps, chain.pool.module.eval()(x).shape[1])


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
        name: see :func:`scripts.model.networks.backbones.find_backbone`.
        adapter: the kind of adapter; ``None``: no adapters.
        sites: blocks that adapters stand at; ``None``: the published ones.
        branches: the branches that a forward pass goes through; one named twice is passed once, and its features are
            returned twice.
        reads: what a head reads: the mean of the last map (:data:`~scripts.model.networks.heads.RECTIFIED`), the same
            without the last activation (:data:`~scripts.model.networks.heads.SIGNED`), so that it has both signs, or
            the levels before it (:data:`~scripts.model.networks.heads.LEVELS`), which stand behind that mean in the
            features.
        levels: the maps that a head of levels reads: that of ``every`` block before the last site, those before each
            site but the first, of tokens those after the first three quarters of the blocks (``published``), or those
            after the blocks of these names.
        image_size: side of the images or volumes, in pixels.

    Raises:
        UserError: for an unknown backbone, site or level, adapters that cannot stand there, images of a size that the
            backbone or the adapters cannot take, and where there are no levels to read.
    """

    def __init__(
        self,
        name: str,
        adapter: Adapter | None = None,
        sites: Sequence[str] | None = None,
        branches: Sequence[str] = (PLAIN,),
        reads: str = RECTIFIED,
        levels: str | Sequence[str] = EVERY,
        image_size: int = 224,
    ) -> None:
        super().__init__()
        self.backbone = find_backbone(name)
        self.backbone.check_image_size(image_size)
        self.name = self.backbone.architecture
        self.adapter = adapter
        self.image_size = image_size
        self.spatial_dims = self.backbone.dimensions
        chain = self.backbone.chain(image_size, reads == SIGNED)
        self.layout = chain.layout
        if sites is None and adapter is not None:
            sites = adapter.sites(self.backbone, chain)
        self.sites = checked_sites(name, chain, sites)
        self.levels = level_names(name, chain, self.sites, levels) if reads == LEVELS else ()
        cuts = ordered_cuts(chain, self.sites, self.levels)
        self.file_keys = file_keys(chain, cuts)
        self.places = chain.places()
        self.pool = chain.pool.module
        self.stem, segments = cut(chain, cuts)
        side = self.backbone.side or image_size
        shapes = measured(chain, self.stem, segments, side)
        places = [
            Place(self.backbone, name, channels, self.layout)
            for name, (channels, _) in zip(cuts, shapes.before, strict=True)
        ]
        self.blocks = nn.ModuleDict(
            {module_name(place.site): self._adapted(segments[place.site], place, cuts) for place in places}
        )
        self.read = read_maps(chain, cuts, self.levels, len(shapes.maps)) if reads == LEVELS else None
        self.last_width = shapes.width
        self.head_width = 2 * sum(shapes.maps[index] for index in self.read) if self.read else shapes.width
        self.width = self.last_width + (self.head_width if self.read else 0)
        if adapter is not None:
            strides = [side // at for _, at in shapes.before]
            at_sites = [pair for pair in zip(places, strides, strict=True) if pair[0].site in self.sites]
            adapter.check_image_size(image_size, at_sites)
        self.branches = list(branches)
        for branch in dict.fromkeys(branches):
            self.add_branch(branch)
        self.eval()  # until a stage trains it

    def _adapted(self, segment: nn.Sequential, place: Place, cuts: Sequence[str]) -> AdaptedBlock:
        """Return a segment that takes adapters, where it stands behind the first site."""
        if self.adapter is None or cuts.index(place.site) < cuts.index(self.sites[0]):
            return AdaptedBlock(segment)
        return self.adapter.inject(segment, place if place.site in self.sites else None)

    def _blocks(self) -> dict[str, AdaptedBlock]:
        blocks: dict[str, Any] = dict(self.blocks.items())
        return blocks

    # -- branches -----------------------------------------------------------------------------------------------

    def add_branch(self, branch: str) -> None:
        """Give every site a new adapter called ``branch`` (none where the backbone is not adapted)."""
        if self.adapter is None or branch == PLAIN:
            return
        reference = next(self.parameters())
        for block in self._blocks().values():
            adapter = block.new(branch)
            if adapter is not None:
                block.adapters[branch] = adapter.to(reference)

    def drop_branches(self, names: Iterable[str]) -> None:
        """Remove the adapters of some branches."""
        for block in self._blocks().values():
            for name in set(names) & set(block.adapters):
                del block.adapters[name]

    def added(self) -> dict[str, list[nn.Module]]:
        """Return what was added for each branch, by name: an adapter a site."""
        blocks = [block for block in self._blocks().values() if block.adapters]
        names = [name for name in blocks[0].adapters if name != SHARED] if blocks else []
        return {name: [block.adapters[name] for block in blocks] for name in names}

    def learning(self, branch: str) -> list[nn.Module]:
        """Return what was added that learns in the task of ``branch``, and what all tasks share."""
        shared = [block.adapters[SHARED] for block in self._blocks().values() if SHARED in block.adapters]
        return [*shared, *self.added().get(branch, [])]

    def passes(self) -> int:
        """Return through how many branches an image passes, each with features of its own."""
        return len(set(self.branches))

    def branch(self, name: str) -> nn.ModuleDict:
        """Return the adapters of a branch, by site."""
        return nn.ModuleDict(
            {site: block.adapters[name] for site, block in self._blocks().items() if name in block.adapters}
        )

    def mergeable(self, branch: str) -> dict[str, Tensor]:
        """Return what merging reads of a branch, under the names of the merged adapters' entries."""
        return {
            f"{site}.{key}": value
            for site, block in self._blocks().items()
            for key, value in block.mergeable(branch).items()
        }

    def folded(self) -> dict[str, Tensor]:
        """Return the state of the plain backbone that equals this one: the branch's changes are added to its weights.

        Raises:
            UserError: when the adapters do not fold, or several branches are in use.
        """
        if self.adapter is not None and not self.adapter.folds:
            raise UserError(
                f"adapter {self.adapter.kind} does not fold into the backbone, since it is not linear (it has ReLUs): "
                "list part 'lora' (key 'parts')"
            )
        if self.passes() > 1:
            raise UserError(f"{self.passes()} sets of adapters do not fold into one backbone: merge them first")
        plain = {key: value for key, value in self.state_dict().items() if ".adapters." not in key}
        for site, block in self._blocks().items():
            changed = block.folded(self.branches[0])
            plain |= {f"blocks.{site}.block.{name}": weight.detach() for name, weight in changed.items()}
        return plain

    # -- the backbone itself ------------------------------------------------------------------------------------

    def base(self) -> list[nn.Module]:
        """Return what an adapter is added to: the backbone itself."""
        return [self.stem, *(block.block for block in self._blocks().values()), self.pool]

    def load_pretrained(self, weights: str, sha256: str | None = None) -> None:
        """Load pretrained weights by name, or from a file whose sha256 starts with these digits.

        Raises:
            UserError: when they cannot be had, or are of another backbone.
        """
        state = read_weights(weights, sha256) if is_file_name(weights) else self.backbone.download(weights)
        load_into(self, self.name, self.file_keys, self.backbone.fitted(state, self.image_size))

    def published_state(self) -> dict[str, Tensor]:
        """Return the backbone's weights under the names that a file of pretrained weights has."""
        state = self.state_dict()
        return {file_key: state[key] for key, file_key in self.file_keys.items()}

    def last_read(self) -> str:
        """Return the name of the last module whose map the head reads, of tokens one that all of them go on from."""
        blocks = list(self._blocks().items())
        if self.read is not None:
            blocks = blocks[: self.read[-1] + 1]
        modules = [
            f"blocks.{site}.{block.output_of(name)}"
            for site, block in blocks
            for name, _ in block.block.named_children()
        ]
        # the last block's tokens, and the normalised ones, are read where they stand
        return modules[max(-3, -len(modules)) if self.layout is Layout.TOKENS and self.read is None else -1]

    # -- one pass -----------------------------------------------------------------------------------------------

    def features_and_maps(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Map images [B, 3, H, W], or volumes [B, 1, D, H, W], to features and maps.

        Returns:
            The features of every branch, [B, R, d], and the maps after each segment of the one passed last,
            [B, c, H, W] each.
        """
        return self.above_stem(self.below_adapters(images))

    def below_adapters(self, images: Tensor) -> Tensor:
        """Map images to the map before the first segment, the same for every branch."""
        return self.stem(self._channels_last(images))

    def above_stem(self, stem: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Map the maps of :meth:`below_adapters` to what :meth:`features_and_maps` returns."""
        stem = self._channels_last(stem)
        features: dict[str, Tensor] = {}
        maps: list[Tensor] = []
        for branch in self.branches:
            if branch in features:
                continue
            maps = []
            x = stem
            for block in self.blocks.values():
                own: list[Tensor] = block(x, branch)
                for level in own:
                    maps.append(self.places(level))
                x = own[-1]
            features[branch] = self.pool(x)
            if self.read is not None:
                levels = spread([maps[index] for index in self.read])
                features[branch] = torch.cat([features[branch], levels], 1)
        return torch.stack([features[branch] for branch in self.branches], 1), maps

    def extras(self, stem: Tensor) -> dict[str, Tensor]:
        """Say of the maps of :meth:`below_adapters` what is to be known beside features, by name, a row an image."""
        return {}

    def penalties(self, stem: Tensor) -> dict[str, Tensor]:
        """Say of the maps of :meth:`below_adapters` what is to be small while adapters learn, by name, numbers."""
        return {}

    def _channels_last(self, x: Tensor) -> Tensor:
        """Lay the channels of a pixel together: a CPU convolves these up to 1.6 times faster."""
        return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x

    def forward(self, images: Tensor) -> Tensor:
        """Map images [B, 3, H, W], or volumes [B, 1, D, H, W], to the features of every branch, [B, R, d]."""
        return self.features_and_maps(images)[0]


def checked_sites(name: str, chain: Chain, sites: Sequence[str] | None) -> tuple[str, ...]:
    """Return the sites in the chain's order; ``None``: the published ones.

    Raises:
        UserError: for one that there is not.
    """
    chosen = chain.sites if sites is None else sites
    names = [block.name for block in chain.blocks]
    known = names if len(names) == 1 else names[1:]
    for site in chosen:
        if site not in known:
            raise UserError(
                f"backbone {name} has no site '{site}': choose among {', '.join(known)} (key 'network_def#sites')"
            )
    return tuple(site for site in known if site in chosen)


def level_names(name: str, chain: Chain, sites: Sequence[str], levels: str | Sequence[str]) -> tuple[str, ...]:
    """Return the blocks after which a head reads the map, in the chain's order.

    Raises:
        UserError: for one that there is not, and where there is none to read.
    """
    if chain.layout is Layout.WHOLE:  # it says itself what there is
        return ()
    names = [block.name for block in chain.blocks]
    if levels == PUBLISHED and chain.layout is Layout.TOKENS:
        chosen = [chain.depths[max(1, round(part * len(chain.depths) / 4)) - 1] for part in (1, 2, 3)]
    elif levels == PUBLISHED:
        chosen = [names[names.index(site) - 1] for site in sites[1:]]
    elif levels == EVERY:
        chosen = [depth for depth in chain.depths if names.index(depth) < names.index(sites[-1])]
    else:
        chosen = [levels] if isinstance(levels, str) else list(levels)
        for level in chosen:
            if level not in names[:-1]:
                raise UserError(
                    f"backbone {name} has no level '{level}': give '{PUBLISHED}', '{EVERY}' or blocks among "
                    f"{', '.join(names[:-1])} (key 'network_def#levels')"
                )
    if not chosen:
        raise UserError(
            "head 'levels' reads the maps before the last site: give two or more sites (key 'network_def#sites'), or "
            "name levels (key 'network_def#levels')"
        )
    return tuple(block for block in names if block in chosen)


def ordered_cuts(chain: Chain, sites: Sequence[str], levels: Sequence[str]) -> tuple[str, ...]:
    """Return the blocks before which a chain is cut: at sites and after levels, none of which is in the stem."""
    names = [block.name for block in chain.blocks]
    cuts = {*sites, *(names[names.index(level) + 1] for level in levels)}
    first = min(map(names.index, cuts))
    if levels and names.index(levels[0]) < first:
        cuts.add(levels[0])
    return tuple(name for name in names if name in cuts)


def read_maps(chain: Chain, cuts: Sequence[str], levels: Sequence[str], maps: int) -> list[int]:
    """Return which of the maps after the stem are levels that a head reads."""
    if chain.layout is Layout.WHOLE:
        return list(range(maps - 1))
    names = [block.name for block in chain.blocks]
    return [cuts.index(names[names.index(level) + 1]) - 1 for level in levels]


def file_keys(chain: Chain, cuts: Sequence[str]) -> dict[str, str]:
    """Return what a file of weights calls the entries of a backbone that is cut there."""
    keys = {f"pool.{key}": file_key for key, file_key in chain.pool.keys().items()}
    where = "stem"
    for block in chain.blocks:
        if block.name in cuts:
            where = f"blocks.{module_name(block.name)}.block"
        keys |= {f"{where}.{module_name(block.name)}.{key}": file_key for key, file_key in block.keys().items()}
    return keys
