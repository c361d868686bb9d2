"""Show images of the memory beside each batch, and offer the batch to the memory."""

from __future__ import annotations

from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Events
from monai.engines.utils import IterationEvents
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import default_collate

from scripts.learning.engines.events import ContinualEvents
from scripts.learning.engines.trainer import ContinualTrainer
from scripts.learning.memory.logits import LogitMemory
from scripts.learning.memory.reservoir import ReservoirMemory
from scripts.learning.sources.source import Item
from scripts.learning.tasks.dataset import ImageDataset


class LogitReplayHandler:
    """Let images drawn from a memory join each batch, and fill ``Outputs.stored`` with the logits kept of them.

    The images are augmented anew at each draw. They and the batch are one forward pass, so they share BatchNorm's
    statistics, where the authors' code makes a pass of each. Several processes keep the same memory and draw from it
    each for itself. Source: Buzzega et al., Dark experience for general continual learning (NeurIPS 2020).

    Args:
        memory: whose images have logits.
        exemplars: takes the items drawn, to decode and augment them as training images.
        batch_size: images a draw.
        draws: how many there are: as many as the loss compares.
    """

    def __init__(self, memory: LogitMemory, exemplars: ImageDataset, batch_size: int, draws: int) -> None:
        self.memory = memory
        self.exemplars = exemplars
        self.batch_size = batch_size
        self.draws = draws
        self.drawn: list[list[Item]] = []

    def attach(self, engine: ContinualTrainer) -> None:
        """Act before each step, and between its forward pass and its loss."""
        engine.add_event_handler(Events.ITERATION_STARTED, self.replay)
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self.recall)

    def replay(self, engine: ContinualTrainer) -> None:
        """Append the draws to the batch's images and labels; its ``index`` stays that of the current images."""
        processes = idist.get_world_size()
        drawn = [self.memory.draw(self.batch_size) for _ in range(self.draws * processes)]
        self.drawn = [draw for draw in drawn[idist.get_rank() :: processes] if draw]
        items = [item for draw in self.drawn for item in draw]
        if items:
            self.exemplars.set_data(items)
            shown = default_collate([self.exemplars[position] for position in range(len(items))])
            batch: Any = engine.state.batch
            engine.state.batch = {**batch, **{key: torch.cat([batch[key], shown[key]]) for key in ("image", "label")}}

    def recall(self, engine: ContinualTrainer) -> None:
        """Lay what was said of the drawn images beside what is said now."""
        outputs = engine.state.output["pred"]
        outputs.stored = [stored_logits(draw).to(outputs.logits.device) for draw in self.drawn]


class DarkExperienceHandler(LogitReplayHandler):
    """Replay from a reservoir that is offered each batch, with what was said of it before the step: DER, DER++.

    Args:
        memory: the reservoir.
        exemplars: see :class:`LogitReplayHandler`, as of all others.
        batch_size: see there.
        draws: see there.
    """

    memory: ReservoirMemory

    def attach(self, engine: ContinualTrainer) -> None:
        """Offer images after each step too, and keep copies, if any, once a task is trained."""
        super().attach(engine)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.offer)
        engine.add_event_handler(ContinualEvents.TRAINING_COMPLETED, self.memory.settle)

    def offer(self, engine: ContinualTrainer) -> None:
        """Offer the current images, of all processes, to the memory."""
        logits = engine.state.output["pred"].logits.detach()
        index = engine.state.batch["index"].to(logits.device)
        everywhere: Any = idist.all_gather(index)
        said: Any = idist.all_gather(logits[: len(index)])
        data = engine.dataset.data
        self.memory.offer([data[position] for position in everywhere.tolist()], said)


def stored_logits(items: list[Item]) -> Tensor:
    """Return the logits kept with ``items``, [N, C], NaN for the classes that came after an item."""
    return pad_sequence([item["logits"] for item in items], batch_first=True, padding_value=float("nan"))
