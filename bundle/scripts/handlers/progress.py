"""Show a progress bar, and say one line a stage."""

from __future__ import annotations

import logging
import time

from ignite.handlers import ProgressBar

from scripts.engines.events import ContinualEvents
from scripts.engines.trainer import ContinualTrainer
from scripts.metrics.record import RunRecord


class ProgressHandler:
    """Show each epoch as a bar (on a terminal only) and log each stage when it is done.

    Args:
        record: takes the seconds of each stage.
    """

    def __init__(self, record: RunRecord) -> None:
        self.record = record
        self.started = 0.0
        self.logger = logging.getLogger(__name__)

    def attach(self, engine: ContinualTrainer) -> None:
        """Act around each stage."""
        bar = ProgressBar(persist=False, disable=None, desc="Epoch")  # None: no bar where there is no terminal
        if engine.state.rank == 0:
            bar.attach(engine, output_transform=lambda output: {"loss": output["loss"].item()})
        engine.add_event_handler(ContinualEvents.TASK_STARTED, self.start)
        engine.add_event_handler(ContinualEvents.STAGE_PREPARED, self.start)
        engine.add_event_handler(ContinualEvents.STAGE_COMPLETED, self.complete)

    def start(self) -> None:
        """Start the clock."""
        self.started = time.perf_counter()

    def complete(self, engine: ContinualTrainer) -> None:
        """Say what the stage did."""
        seconds = time.perf_counter() - self.started
        stage, task = engine.current_stage.name, engine.current_task.name
        self.record.stages.append({"task": task, "stage": stage, "seconds": seconds})
        output = engine.state.output or {}
        loss = f", last loss {output['loss'].item():.3f}" if "loss" in output else ""
        epochs = f"{engine.state.epoch} epochs of {len(engine.dataset)} images{loss}" if engine.state.epoch else "done"
        self.logger.info(
            "Task %d/%d %s, %s: %s, %.1f s",
            engine.state.task,
            len(engine.tasks),
            task,
            stage.replace("_", " "),
            epochs,
            seconds,
        )
