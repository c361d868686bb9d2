"""Stop when the loss is no number any more, before anything learnt is overwritten."""

from __future__ import annotations

from ignite.engine import Events

from scripts.engines.trainer import ContinualTrainer
from scripts.errors import UserError


class FiniteLossHandler:
    """End the run at the first step whose loss is infinite or not a number; the last epoch's checkpoint stays."""

    def attach(self, engine: ContinualTrainer) -> None:
        """Look at the loss of each step."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: ContinualTrainer) -> None:
        """Look.

        Raises:
            UserError: says where the training diverged.
        """
        output = engine.state.output
        if not output["loss"].isfinite():
            raise UserError(
                f"the loss is {output['loss'].item()} in {engine.current_stage.name} of task "
                f"{engine.current_task.name}, epoch {engine.state.epoch}: lower the learning rate (--optimizer#lr) "
                "or raise batch_size; what was learnt before is saved"
            )
