"""X-DER: logits that are kept learn of later classes, and classes to come are prepared."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from ignite.engine import Events
from monai.engines.utils import IterationEvents
from torch import Tensor, nn
from torch.utils.data import default_collate

from scripts.learning.engines.events import ContinualEvents
from scripts.learning.engines.trainer import ContinualTrainer
from scripts.learning.features.extractor import FeatureExtractor
from scripts.learning.handlers.dark_experience import LogitReplayHandler
from scripts.learning.memory.logits import LogitMemory
from scripts.learning.tasks.dataset import ImageDataset
from scripts.model.networks.continual import ContinualNet
from scripts.model.networks.outputs import Outputs
from scripts.utils.errors import UserError

VIEWS = 2


class ExtendedDarkExperienceHandler(LogitReplayHandler):
    """Implant what is said of later classes into the logits kept of old images, and show views for those to come.

    The memory is balanced, and filled at the end of a task. A drawn image of an old task gets the logits of the present
    and future classes as they are said now, at its first draw, and with probability 1/k at its k-th. At a task's end
    all get them. Source: Boschini et al., Class-incremental continual learning into the eXtended DER-verse (TPAMI
    2022).

    Args:
        network: the growing network, with a head ``prepared``.
        features: of images under the network as it is.
        views: draws a view of each image of a batch.
        gamma: how far implanted logits stay behind that of the image's own class, as a share of it.
        contrasted: images of the batch, and of a draw, whose views are compared.
        memory: see :class:`LogitReplayHandler`, as of all others.
        exemplars: see there.
        batch_size: see there.

    Raises:
        UserError: for another head.
    """

    def __init__(
        self,
        network: ContinualNet,
        features: FeatureExtractor,
        views: Callable[[Tensor], Tensor],
        gamma: float,
        contrasted: int,
        memory: LogitMemory,
        exemplars: ImageDataset,
        batch_size: int,
    ) -> None:
        super().__init__(memory, exemplars, batch_size, draws=2)
        if network.head_name != "prepared":
            raise UserError("X-DER prepares classes to come: use head 'prepared' (key 'network_def#head')")
        self.network = network
        self.features = features
        self.views = views
        self.gamma = gamma
        self.contrasted = contrasted

    def attach(self, engine: ContinualTrainer) -> None:
        """Act around each step, and once the memory of a task is chosen."""
        super().attach(engine)
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self.contrast)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.implant)
        engine.add_event_handler(ContinualEvents.MEMORY_UPDATED, self.remember)

    def contrast(self, engine: ContinualTrainer) -> None:
        """Lay future logits of views of some images beside what is said; they leave BatchNorm's statistics alone."""
        batch: Any = engine.state.batch
        current = len(batch["index"])
        images, labels = batch["image"][:current][: self.contrasted], batch["label"][:current][: self.contrasted]
        if items := self.memory.draw(self.contrasted):
            self.exemplars.set_data(items)
            shown = default_collate([self.exemplars[position] for position in range(len(items))])
            images, labels = torch.cat([images, shown["image"]]), torch.cat([labels, shown["label"]])
        device = engine.state.output["pred"].logits.device
        seen = torch.cat([self.views(images) for _ in range(VIEWS)]).to(device)
        with untracked(self.network):
            future = self.network(seen).extras["future"]
        outputs = engine.state.output["pred"]
        outputs.extras["views"] = torch.stack(future.chunk(VIEWS), 1)
        outputs.extras["view_labels"] = labels.to(device)

    @torch.no_grad()
    def implant(self, engine: ContinualTrainer) -> None:
        """Let some of the drawn images learn what is said of present and future classes."""
        rows = said_of(engine.state.output["pred"]).cpu()
        items = [item for draw in self.drawn for item in draw]
        first = engine.current_task.first
        met: set[int] = set()
        for item, said in zip(items, rows[len(rows) - len(items) :], strict=True):
            if id(item) in met:
                continue
            met.add(id(item))
            item["implants"] = item.get("implants", 0) + 1
            if float(torch.rand(())) * item["implants"] < 1:
                item["logits"] = implanted(item["logits"], said, item["label"], first, self.gamma)

    @torch.no_grad()
    def remember(self, engine: ContinualTrainer) -> None:
        """Keep logits of the new exemplars, and let those of old ones learn what is said of later classes."""
        items = self.memory.items()
        if not items:
            return
        features = self.features.features(items)[:, 0].to(self.features.device)
        first = engine.current_task.first
        for item, said in zip(items, said_of(self.network.outputs(features)).cpu(), strict=True):
            if item["label"] < first:
                item["logits"] = implanted(item["logits"], said, item["label"], first, self.gamma)
            else:
                past = held_behind(said[:first], said[item["label"]], self.gamma)
                item["logits"] = torch.cat([past, said[first:]])
            item["implants"] = 0


def said_of(outputs: Outputs) -> Tensor:
    """Return the logits of classes seen and to come, [B, C + F]."""
    return torch.cat([outputs.logits, outputs.extras["future"]], 1)


def implanted(kept: Tensor, said: Tensor, label: int, first: int, gamma: float) -> Tensor:
    """Return logits kept of an image with those of classes from ``first`` on as they are said now, held behind its own.

    Args:
        kept: [K].
        said: [C + F], at least as many.
        label: of the image, below ``first``.
        first: the present task's first class, at most K.
        gamma: see :func:`held_behind`.
    """
    return torch.cat([kept[:first], held_behind(said[first:], kept[label], gamma)])


def held_behind(logits: Tensor, own: Tensor, gamma: float) -> Tensor:
    """Scale logits [K] so that where one leads that of the own class, the largest is ``gamma`` times it.

    One that is negative leaves 0, where the authors' code would change signs.
    """
    if not len(logits) or logits.max() <= own:
        return logits.clone()
    return logits * (gamma * own / logits.max()).clamp(0, 1)


@contextmanager
def untracked(network: nn.Module) -> Iterator[None]:
    """Let BatchNorm use a batch's statistics for a while, and keep its running ones as they are."""
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum
