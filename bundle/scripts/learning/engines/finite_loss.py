"""Stop when the loss is no number any more, before anything learnt is overwritten."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from ignite.engine import Events
from torch import Tensor

from scripts.utils.errors import UserError

if TYPE_CHECKING:
    from scripts.learning.engines.trainer import ContinualTrainer

EVERY = 50
"""Steps of an epoch after which the losses are read: reading one makes the host wait for the device."""


class FiniteLossHandler:
    """End the run once a loss is infinite or not a number, before its epoch ends; the last epoch's checkpoint stays.

    The losses of the last :data:`EVERY` steps, or of what is left of an epoch, are read together.
    """

    def __init__(self) -> None:
        self.losses: list[Tensor] = []

    def attach(self, engine: ContinualTrainer) -> None:
        """Look at the loss of each step."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: ContinualTrainer) -> None:
        """Keep the loss; look at all that were kept, from time to time and after the last step of an epoch."""
        self.losses.append(engine.state.output["loss"].detach())
        if engine.state.iteration % engine.state.epoch_length % EVERY == 0:
            losses, self.losses = torch.stack(self.losses), []
            check_finite(engine, losses)


def check_finite(engine: ContinualTrainer, losses: Tensor) -> None:
    """Refuse losses that are infinite or not a number.

    Args:
        engine: says where the training is.
        losses: of one step [] or of several [N] of the running epoch.

    Raises:
        UserError: says where the training diverged, and the first such loss.
    """
    finite = losses.isfinite()
    if not finite.all():
        raise UserError(
            f"the loss is {losses[~finite][0].item()} in {engine.current_stage.name} of task "
            f"{engine.current_task.name}, epoch {engine.state.epoch}: lower the learning rate (--optimizer#lr) or "
            "raise batch_size; what was learnt before is saved"
        )
