"""One adapter for all tasks beside a small one a task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from scripts.model.networks.adapters.adapter import ADAPTERS, SHARED, AdaptedBlock, Adapter, Place
from scripts.model.networks.backbones import Backbone, Chain
from scripts.utils.errors import UserError


@dataclass(frozen=True)
class SharedAdapters(Adapter):
    """An adapter a site that goes on learning in every task, and one a task after (or beside) it.

    Those of the tasks are merged; the shared one is passed through as it is by every branch but the plain backbone.
    Of convolutions the own one reads what the shared one returns, beside a transformer's MLP both read the same, and
    low-rank changes of a weight are added.

    Args:
        common: the shared one.
        own: one a task; may have another size.

    Raises:
        UserError: for kinds of which all tasks' are in use, or two that do not stand in the same place.
    """

    kind: ClassVar[str] = "shared"
    common: Adapter
    own: Adapter

    def __post_init__(self) -> None:
        """Check the values."""
        for adapter in (self.common, self.own):
            if adapter.gathers or adapter.shares:
                raise UserError(
                    f"adapters '{adapter.kind}' of all tasks are in use already, none is beside another: share 'conv', "
                    "'attention', 'bottleneck' or 'lora' (keys 'adapter#common', 'adapter#own')"
                )

    @property
    def folds(self) -> bool:
        return self.own.folds

    @property
    def products(self) -> bool:
        return self.own.products

    @property
    def shares(self) -> bool:
        return True

    def sites(self, backbone: Backbone, chain: Chain) -> Sequence[str]:
        return self.own.sites(backbone, chain)

    def inject(self, segment: nn.Sequential, place: Place | None) -> AdaptedBlock:
        block, common = self.own.inject(segment, place), self.common.inject(segment, place)
        if type(block) is not type(common):
            raise UserError(
                f"adapters '{self.common.kind}' and '{self.own.kind}' do not stand in one place, so that one cannot be "
                "shared beside the other: give both one kind (keys 'adapter#common', 'adapter#own')"
            )
        shared = common.new(SHARED)
        if shared is not None:
            block.adapters[SHARED] = shared
        return block

    def check_image_size(self, image_size: int, places: list[tuple[Place, int]]) -> None:
        for adapter in (self.common, self.own):
            adapter.check_image_size(image_size, places)

    def check_start(self, start: str) -> None:
        self.own.check_start(start)


ADAPTERS[SharedAdapters.kind] = SharedAdapters
