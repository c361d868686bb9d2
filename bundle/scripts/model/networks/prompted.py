"""A frozen transformer that is told prompts, which an image chooses by what the transformer says of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from scripts.model.networks.adapted import EVERY, PLAIN, AdaptedBackbone
from scripts.model.networks.adapters import Prompts
from scripts.model.networks.adapters.prompts import LAST
from scripts.model.networks.backbones.backbone import TokenPlaces
from scripts.model.networks.heads import LEVELS, RECTIFIED
from scripts.utils.errors import UserError


class PromptedBackbone(AdaptedBackbone):
    """A plain vision transformer with a pool of prompts: a query chooses, and one pass is made with what is chosen.

    ``branches`` are the tasks whose slices of the pool stand to choice, behind that of the plain backbone, which is
    passed through where there are no others. What stands before the first adapter is the tokens before the first
    prompts and, where the query takes a pass of its own, the query behind them as one more token: neither ever learns.

    Args:
        name: see :class:`AdaptedBackbone`, as of all others.
        adapter: the kind of prompts.
        sites: those of the adapter; none else.
        branches: the slices.
        reads: not levels.
        levels: not read.
        image_size: side of the images, in pixels.

    Raises:
        UserError: for a backbone without room for prompts, a head of levels, and sites that are not the adapter's.
    """

    def __init__(
        self,
        name: str,
        adapter: Prompts,
        sites: Sequence[str] | None = None,
        branches: Sequence[str] = (PLAIN,),
        reads: str = RECTIFIED,
        levels: str | Sequence[str] = EVERY,
        image_size: int = 224,
    ) -> None:
        if reads == LEVELS:
            raise UserError(
                f"prompts '{adapter.kind}' are read at the end of the transformer: leave part 'levels' out (key "
                "'parts')"
            )
        super().__init__(name, adapter, None, (), reads, levels, image_size)
        if sites is not None and tuple(sites) != self.sites:
            raise UserError(
                f"prompts '{adapter.kind}' stand at {', '.join(self.sites)}: name blocks there (key 'adapter#blocks'), "
                "and leave 'network_def#sites' out"
            )
        self.prompts = adapter.pool(self.sites, self.last_width)
        self.one_pass = adapter.query != LAST
        self.prepended = adapter.prepended
        assert isinstance(self.places, TokenPlaces)
        self.image_places = self.places
        self.places = TokenPlaces(tuple(self.places.grid), self.places.special_tokens + self.prepended)
        self.branches = list(branches)
        for branch in branches:
            self.add_branch(branch)
        self.eval()

    # -- branches -----------------------------------------------------------------------------------------------

    def add_branch(self, branch: str) -> None:
        """Let the pool grow by the slice of a task."""
        if branch != PLAIN:
            self.prompts.add(branch)
            self.prompts.to(next(self.stem.parameters()))

    def added(self) -> dict[str, list[nn.Module]]:
        """Return the slice of each task, and with the first one what belongs to all."""
        slices = {name: [own] for name, own in self.prompts.slices.items()}
        for own in list(slices.values())[:1]:
            own += self.prompts.shared()
        return slices

    def learning(self, branch: str) -> list[nn.Module]:
        return self.prompts.learning(branch) if branch in self.prompts.slices else []

    def passes(self) -> int:
        return 1

    # -- one pass -----------------------------------------------------------------------------------------------

    def below_adapters(self, images: Tensor) -> Tensor:
        """Map images to the tokens before the first prompts [B, N, c], and the query, [B, N + 1, c]."""
        x = self.stem(self._channels_last(images))
        if self.one_pass or len(self.branches) == 1:
            return x
        y = x
        for block in self.blocks.values():
            own: list[Tensor] = block(y, "")
            y = own[-1]
        return torch.cat([x, self.pool(y).detach().unsqueeze(1)], 1)

    def tokens_and_query(self, stem: Tensor) -> tuple[Tensor, Tensor]:
        """Divide what :meth:`below_adapters` returns into tokens [B, N, c] and queries [B, c]."""
        if self.one_pass:
            return stem, self.pool(standardised(stem))
        return stem[:, :-1], stem[:, -1]

    def above_stem(self, stem: Tensor) -> tuple[Tensor, list[Tensor]]:
        x, prompts = stem, [stem]
        prompted = len(self.branches) > 1
        if prompted:
            x, query = self.tokens_and_query(stem)
            prompts = self.prompts(query, self.branches)
        maps: list[Tensor] = []
        for index, block in enumerate(self.blocks.values()):
            if prompted:
                x = block.prompted(x, prompts[index])  # type: ignore[operator]
            else:
                own: list[Tensor] = block(x, "")
                x = own[-1]
            maps.append(self.places(x) if prompted else self.image_places(x))
        if prompted and self.prepended > 0:  # all of them stand where the pooling looks
            x = x[:, : self.prepended].mean(1, keepdim=True).expand(-1, self.image_places.special_tokens + 1, -1)
        return self.pool(x).unsqueeze(1), maps

    def extras(self, stem: Tensor) -> dict[str, Tensor]:
        """Return the part of each prompt in what an image is told, [B, P], as ``prompts``."""
        if len(self.branches) == 1:
            return {}
        return {"prompts": self.prompts.shares(self.tokens_and_query(stem)[1], self.branches)}

    def penalties(self, stem: Tensor) -> dict[str, Tensor]:
        if len(self.branches) == 1:
            return {}
        return self.prompts.penalties(self.tokens_and_query(stem)[1], self.branches)

    @torch.no_grad()
    def matches(self, images: Tensor) -> Tensor:
        """Return how well each prompt matches each patch of images [B, 3, H, W], as a query: [B, P, h, w] in -1..1."""
        x = self.stem(self._channels_last(images))
        if self.one_pass:
            x = standardised(x)
        else:
            for block in self.blocks.values():
                x = block(x, "")[-1]
        places = self.image_places(x)
        scores = self.prompts.scores(places.flatten(2).transpose(1, 2).flatten(0, 1), self.branches)
        return scores.unflatten(0, [len(images), -1]).transpose(1, 2).unflatten(2, list(places.shape[2:]))


def standardised(x: Tensor) -> Tensor:
    """Return tokens [B, N, c], each of mean 0 and variance 1: what a block says has numbers that stand out."""
    return layer_norm(x, [x.shape[2]])
