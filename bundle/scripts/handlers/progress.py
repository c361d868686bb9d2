"""Show a progress bar, and say one line a stage."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Mapping

from ignite.handlers import ProgressBar
from torch import Tensor

from scripts.engines.events import ContinualEvents
from scripts.engines.trainer import ContinualTrainer
from scripts.metrics.record import RunRecord

PAUSE = 0.1
"""Seconds before the loss on the bar is read again: reading it makes the host wait for the device."""


class ProgressHandler:
    """Show each epoch as a bar (on a terminal only) and log each stage when it is done.

    Args:
        record: takes the seconds of each stage.
    """

    def __init__(self, record: RunRecord) -> None:
        self.record = record
        self.started = 0.0
        self.loss, self.read = 0.0, -math.inf  # what the bar shows, and when it was read
        self.logger = logging.getLogger(__name__)

    def attach(self, engine: ContinualTrainer) -> None:
        """Act around each stage."""
        if engine.state.rank == 0 and sys.stderr.isatty():
            ProgressBar(persist=False, desc="Epoch").attach(engine, output_transform=self.shown)
        engine.add_event_handler(ContinualEvents.TASK_STARTED, self.start)
        engine.add_event_handler(ContinualEvents.STAGE_PREPARED, self.start)
        engine.add_event_handler(ContinualEvents.STAGE_COMPLETED, self.complete)

    def shown(self, output: Mapping[str, Tensor]) -> dict[str, float]:
        """Return what the bar says of a step: its loss, or that of a step not long ago."""
        now = time.perf_counter()
        if now - self.read >= PAUSE:
            self.read, self.loss = now, output["loss"].item()
        return {"loss": self.loss}

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
