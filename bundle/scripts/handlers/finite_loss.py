"""Stop when the loss is no number any more, before anything learnt is overwritten."""

from __future__ import annotations

from ignite.engine import Events
from torch import Tensor

from scripts.engines.trainer import ContinualTrainer
from scripts.errors import UserError


class FiniteLossHandler:
    """End the run at the first step whose loss is infinite or not a number; the last epoch's checkpoint stays."""

    def attach(self, engine: ContinualTrainer) -> None:
        """Look at the loss of each step."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: ContinualTrainer) -> None:
        """Look."""
        check_finite(engine, engine.state.output["loss"])


def check_finite(engine: ContinualTrainer, loss: Tensor) -> None:
    """Refuse a loss that is infinite or not a number.

    Raises:
        UserError: says where the training diverged.
    """
    if not loss.isfinite():
        raise UserError(
            f"the loss is {loss.item()} in {engine.current_stage.name} of task {engine.current_task.name}, "
            f"epoch {engine.state.epoch}: lower the learning rate (--optimizer#lr) or raise batch_size; "
            "what was learnt before is saved"
        )
