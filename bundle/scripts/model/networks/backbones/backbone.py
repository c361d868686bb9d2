"""What a backbone is: a chain of named blocks and a pooling, whatever its family."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, NamedTuple

from torch import Tensor, nn

from scripts.utils.errors import UserError


class Layout(StrEnum):
    """How a block's output lies in memory."""

    CHANNELS_FIRST = "NCHW"  # or [B, c, D, H, W]
    CHANNELS_LAST = "NHWC"
    TOKENS = "NLC"
    WHOLE = "whole"  # one block is the whole network: it returns maps [B, c, H, W] of several depths


class Block(NamedTuple):
    """One link of the chain.

    Attributes:
        name: what sites and levels call it.
        module: from the map before it to the map after it.
        prefix: how its entries start in a file of weights.
        inner: the part of the module that the file has, where that is not all of it.
    """

    name: str
    module: nn.Module
    prefix: str
    inner: str = ""

    def keys(self) -> dict[str, str]:
        """Return what a file of weights calls each entry of the module."""
        inner = f"{self.inner}." if self.inner else ""
        return {key: f"{self.prefix}{key.removeprefix(inner)}" for key in self.module.state_dict()}


@dataclass(frozen=True)
class Chain:
    """An untrained network without its classifier.

    Attributes:
        blocks: in the order of the forward pass; the first maps images.
        pool: from the last map to features [B, d].
        sites: the blocks that an adapter stands at where the config names none.
        depths: the blocks after which a head may read the map, in order.
        layout: of the maps.
        grid: tokens along each axis of an image, for maps of tokens.
        special_tokens: tokens that stand before those of the image, a class token for one.
    """

    blocks: Sequence[Block]
    pool: Block
    sites: Sequence[str]
    depths: Sequence[str]
    layout: Layout = Layout.CHANNELS_FIRST
    grid: tuple[int, ...] = ()
    special_tokens: int = 0

    def places(self) -> nn.Module:
        """Return what lays a map out as [B, c, H, W], or [B, c, D, H, W]."""
        if self.layout is Layout.TOKENS:
            return TokenPlaces(self.grid, self.special_tokens)
        return ChannelsFirst() if self.layout is Layout.CHANNELS_LAST else nn.Identity()


class ChannelsFirst(nn.Module):
    """[B, H, W, c] as [B, c, H, W]."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 1, 2)


class TokenPlaces(nn.Module):
    """Tokens [B, N, c] as a map [B, c, H, W]; special tokens have no place.

    Args:
        grid: (H, W), or (D, H, W).
        special_tokens: that stand before those of the image.
    """

    def __init__(self, grid: tuple[int, ...], special_tokens: int) -> None:
        super().__init__()
        self.grid = list(grid)
        self.special_tokens = special_tokens

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, self.special_tokens :].transpose(1, 2)
        return x.reshape([x.shape[0], x.shape[1]] + self.grid)


class Backbone(ABC):
    """A backbone by its name: how it is built, what its images look like, where its weights come from.

    Args:
        name: what configs call it.
    """

    dimensions: ClassVar[int] = 2
    """2 for images [B, 3, H, W], 3 for volumes [B, 1, D, H, W]."""
    side: int | None = 32
    """Side of an image that shapes are measured with, a multiple of every stride; ``None``: only ``image_size``."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def architecture(self) -> str:
        """The name by which it is built without asking anybody: what ``network.json`` says."""
        return self.name

    @abstractmethod
    def chain(self, image_size: int, signed: bool = False) -> Chain:
        """Build it, untrained.

        Args:
            image_size: side of the images in pixels, a valid one; see :meth:`check_image_size`.
            signed: leave the last activation out, so that features have both signs.
        """

    @abstractmethod
    def normalisation(self) -> tuple[list[float], list[float]]:
        """Return mean and standard deviation, a value a channel, for pixels in 0..1."""

    @abstractmethod
    def download(self, weights: str) -> dict[str, Tensor]:
        """Return the state dict of pretrained weights by name.

        Raises:
            UserError: when there are none of that name, or they cannot be had.
        """

    def fitted(self, state: dict[str, Tensor], image_size: int) -> dict[str, Tensor]:
        """Return pretrained weights for images of this size."""
        return state

    def licence(self, weights: str) -> str | None:
        """Return the licence of pretrained weights, as their publisher says it; ``None``: it is not known here."""
        return None

    def check_image_size(self, image_size: int) -> None:
        """Refuse images that it cannot take.

        Raises:
            UserError: says which it takes.
        """
        return None


class PatchedBackbone(Backbone):
    """A backbone that cuts an image into patches, and has a position for each."""

    side = None
    patch: int

    def check_image_size(self, image_size: int) -> None:
        check_patches(self.name, image_size, self.patch)


def check_patches(name: str, image_size: int, patch: int) -> None:
    """Refuse images that do not divide into patches.

    Raises:
        UserError: names the nearest size that does.
    """
    if image_size % patch:
        nearest = max(patch, round(image_size / patch) * patch)
        raise UserError(
            f"image_size {image_size} is no multiple of {patch}, the patches of {name}: use {nearest} (key "
            "'image_size')"
        )


class Segment(nn.Sequential):
    """Blocks in a row."""

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the maps that it comes by and that a head may read; the last one goes on."""
        for module in self:
            x = module(x)
        return [x]


class WholeSegment(nn.Sequential):
    """A network that returns maps of several depths."""

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return its maps [B, c, H, W]; the last one goes on."""
        maps: list[Tensor] = self[0](x)
        return maps


def cut(chain: Chain, at: Sequence[str]) -> tuple[nn.Sequential, dict[str, nn.Sequential]]:
    """Cut a chain before some of its blocks.

    Args:
        chain: is taken apart.
        at: names of blocks, in any order; not of the first block, unless it is the only one.

    Returns:
        What stands before the first cut, and a segment a cut, from it up to the next one, in the chain's order.
    """
    kind = WholeSegment if chain.layout is Layout.WHOLE else Segment
    stem = nn.Sequential()
    parts: dict[str, nn.Sequential] = {}
    current = stem
    for block in chain.blocks:
        if block.name in at:
            current = parts[block.name] = kind()
        current.add_module(module_name(block.name), block.module)
    return stem, parts


def module_name(name: str) -> str:
    """Return what a block is called where names have no dots."""
    return name.replace(".", "_")


def black_image(network: nn.Module, side: int) -> Tensor:
    """Return zeros of the shape of one image: [1, 3, side, side], or [1, 1, side, side, side] for volumes.

    Args:
        network: one whose first weight of more than three axes is a convolution's, [out, in, kernel, kernel(, kernel)].
        side: height and width, and depth of a volume.
    """
    weight = next(weight for weight in network.parameters() if weight.dim() > 3)
    return weight.new_zeros(1, weight.shape[1], *[side] * (weight.dim() - 2))
