"""What an adapter is: a few layers that a task adds to a segment of the frozen backbone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from torch import Tensor, nn

from scripts.model.networks.backbones import Backbone, Chain, Layout
from scripts.model.networks.registry import Registry
from scripts.utils.errors import UserError

PLAIN = "backbone"  # the branch without adapters
MERGED = "merged"  # the branch of the merged adapters
SHARED = "shared"  # no branch: the adapter that all branches but the plain one pass through beside their own


@dataclass(frozen=True)
class Place:
    """Where an adapter is to stand.

    Attributes:
        backbone: what it is put into.
        site: the first block of the segment, in front of which the map is.
        channels: of that map.
        layout: of that map.
    """

    backbone: Backbone
    site: str
    channels: int
    layout: Layout


class AdaptedBlock(nn.Module):
    """A segment of the backbone with its adapters, one a branch; here without any.

    Args:
        block: the segment.
    """

    def __init__(self, block: nn.Sequential) -> None:
        super().__init__()
        self.adapters = nn.ModuleDict()
        self.block = block
        self.shared, self.plain = SHARED, PLAIN  # TorchScript reads no constants of a file

    def uses(self, name: str, branch: str) -> bool:
        """Say whether a pass through ``branch`` goes through the adapter called ``name``."""
        return name == branch or (name == self.shared and branch != self.plain)

    def new(self, branch: str) -> nn.Module | None:
        """Make the adapter of a branch; ``None`` where the segment has none."""
        return None

    def mergeable(self, branch: str) -> dict[str, Tensor]:
        """Return what a merging row reads of the adapter called ``branch``: its state."""
        return self.adapters[branch].state_dict() if branch in self.adapters else {}

    def output_of(self, name: str) -> str:
        """Return the name of the module in here whose output is the map after the segment's module ``name``."""
        return f"block.{name}"

    def folded(self, branch: str) -> dict[str, Tensor]:
        """Return the segment's weights that ``branch`` changes, changed, where its adapters fold into them."""
        return {}

    def forward(self, x: Tensor, branch: str) -> list[Tensor]:
        """Pass a map through the adapter called ``branch``, where there is one, and through the segment.

        Returns:
            The maps after the segment; see :class:`scripts.model.networks.backbones.Segment`.
        """
        maps: list[Tensor] = self.block(x)
        return maps


class DividedBlock(AdaptedBlock):
    """A segment that starts with a transformer's block, which is taken in its two halves.

    Args:
        block: the segment.
    """

    def __init__(self, block: nn.Sequential) -> None:
        super().__init__(block)
        self.first = nn.Identity()  # the block is never called as a whole: what it says passes here

    def output_of(self, name: str) -> str:
        return "first" if name == next(iter(dict(self.block.named_children()))) else super().output_of(name)

    def after_first(self, x: Tensor) -> Tensor:
        """Pass what the block said, [B, N, c], through the rest of the segment."""
        x = self.first(x)
        for index, module in enumerate(self.block):  # not a slice, which TorchScript does not know
            if index > 0:
                x = module(x)
        return x


class Adapter(ABC):
    """A kind of adapter with its settings: what a config names. Kinds are frozen dataclasses.

    Attributes:
        kind: its name in ``network.json``.
        expands: whether it is a backbone of its own, beside those before, so that a head reads all of them.
        gathers: whether a pass goes through what all tasks added, rather than through what one did, or their merge.
    """

    kind: ClassVar[str]
    expands: ClassVar[bool] = False
    gathers: ClassVar[bool] = False

    @property
    def folds(self) -> bool:
        """Whether it is added to the backbone's weights in the end, so that it costs nothing."""
        return False

    @property
    def products(self) -> bool:
        """Whether not its own numbers are merged but what they multiply to."""
        return False

    @property
    def shares(self) -> bool:
        """Whether part of it belongs to all tasks, goes on learning and is never merged."""
        return False

    def sites(self, backbone: Backbone, chain: Chain) -> Sequence[str]:
        """Return the blocks that it stands at where the config names none.

        Raises:
            UserError: where there is no such place.
        """
        return chain.sites

    @abstractmethod
    def inject(self, segment: nn.Sequential, place: Place | None) -> AdaptedBlock:
        """Make a segment that takes adapters.

        Args:
            segment: of the backbone.
            place: where its adapters stand; ``None``: at this segment the config asks for none.

        Raises:
            UserError: when such an adapter cannot stand there.
        """

    def check_image_size(self, image_size: int, places: list[tuple[Place, int]]) -> None:
        """Refuse images too small for the adapters.

        Args:
            image_size: side in pixels.
            places: each with the stride of the map there.

        Raises:
            UserError: says what is too small.
        """
        return None

    def check_start(self, start: str) -> None:
        """Refuse what a later task's adapters cannot start from.

        Raises:
            UserError: says why.
        """
        return None

    def record(self) -> dict[str, Any]:
        """Return what ``network.json`` says of it."""
        settings = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        plain = {name: own.record() if isinstance(own, Adapter) else own for name, own in settings.items()}
        return {"kind": self.kind, **plain}


ADAPTERS: Registry[type[Adapter]] = Registry("adapter", "adapter")


def make_adapter(record: Mapping[str, Any] | None) -> Adapter | None:
    """Make the kind of adapter that a ``network.json`` records.

    Raises:
        UserError: for an unknown kind, or settings that it does not have.
    """
    if record is None:
        return None
    settings = {
        key: make_adapter(value) if isinstance(value, Mapping) else value
        for key, value in record.items()
        if key != "kind"
    }
    try:
        return ADAPTERS.find(record["kind"])(**settings)
    except TypeError as error:
        raise UserError(f"adapter {record} has settings of another kind: take the file of the same run") from error
