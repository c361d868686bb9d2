"""A bottleneck beside the MLP of a transformer's block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from scripts.model.networks.adapters.adapter import ADAPTERS, AdaptedBlock, Adapter, DividedBlock, Place
from scripts.model.networks.backbones import TransformerBlock
from scripts.utils.errors import UserError


class BottleneckAdapter(nn.Module):
    """``scale * up(ReLU(down(x)))`` of each token; zero at first.

    Source: Chen et al., AdaptFormer (NeurIPS 2022), section 3.2; Fukuda et al., ACMap (arXiv 2412.18219).

    Args:
        channels: of a token.
        width: between the two layers.
        scale: of the sum.
    """

    def __init__(self, channels: int, width: int, scale: float) -> None:
        super().__init__()
        self.down = nn.Linear(channels, width)
        self.up = nn.Linear(width, channels)
        self.scale = scale
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens [B, N, c] to what is added to them."""
        return self.scale * self.up(self.down(x).relu())


class BlockWithBottleneck(DividedBlock):
    """A segment that starts with a transformer's block, with adapters beside the second half of it.

    Args:
        block: the segment.
        channels: of a token.
        settings: of the adapters.
    """

    def __init__(self, block: nn.Sequential, channels: int, settings: Bottleneck) -> None:
        super().__init__(block)
        self.channels = channels
        self.width = settings.width
        self.scale = settings.scale

    def new(self, branch: str) -> nn.Module:
        return BottleneckAdapter(self.channels, self.width, self.scale)

    def forward(self, x: Tensor, branch: str) -> list[Tensor]:
        x = self.block[0].attend(x)  # type: ignore[operator]
        y = self.block[0].transform(x)  # type: ignore[operator]
        for name, adapter in self.adapters.items():
            if self.uses(name, branch):
                y = y + adapter(x)
        return [self.after_first(y)]


@dataclass(frozen=True)
class Bottleneck(Adapter):
    """Adapters beside the MLP of the named blocks of a plain vision transformer.

    Args:
        width: numbers between the two layers.
        scale: of what is added.

    Raises:
        UserError: for a width below 1.
    """

    kind: ClassVar[str] = "bottleneck"
    width: int = 64
    scale: float = 0.1

    def __post_init__(self) -> None:
        """Check the value."""
        if self.width < 1:
            raise UserError(f"a bottleneck cannot have width {self.width}: use at least 1 (key 'adapter#width')")

    def inject(self, segment: nn.Sequential, place: Place | None) -> AdaptedBlock:
        if place is None:
            return AdaptedBlock(segment)
        if not isinstance(segment[0], TransformerBlock):
            raise UserError(
                f"adapters '{self.kind}' stand beside the MLP of a plain vision transformer's block, and {place.site} "
                f"of {place.backbone.name} is none: list part 'lora', or leave 'bottleneck' out (key 'parts')"
            )
        return BlockWithBottleneck(segment, place.channels, self)


ADAPTERS[Bottleneck.kind] = Bottleneck
