"""Show how far a run is, and say one line a stage."""

from __future__ import annotations

import logging
import math
import sys
import time

from ignite.engine import Events
from tqdm import tqdm

from scripts.learning.engines.events import ContinualEvents
from scripts.learning.engines.trainer import ContinualTrainer
from scripts.learning.handlers.time_left import TimeLeft
from scripts.metrics.record import RunRecord
from scripts.utils.looked_on import BETWEEN
from scripts.utils.words import counted, duration

PAUSE = 0.1
"""Seconds before the loss on the bar is read again: reading it makes the host wait for the device."""
BAR = "{desc}: {percentage:3.0f}%|{bar:20}| {postfix}"


class ProgressHandler:
    """Show the run as a bar, or log a line an epoch where there is no terminal, and log each stage when it is done.

    Bar and line have the task, the stage, the epoch, the loss and the time left for the run.

    Args:
        record: takes the seconds of each stage.
    """

    def __init__(self, record: RunRecord) -> None:
        self.record = record
        self.time_left = TimeLeft(record.stages)
        self.started, self.begun_at = 0.0, 0  # when the stage began in this process, and at which epoch
        self.said = -math.inf
        self.bar: tqdm | None = None
        self.logger = logging.getLogger(__name__)

    def attach(self, engine: ContinualTrainer) -> None:
        """Act around each stage."""
        engine.add_event_handler(ContinualEvents.TASK_STARTED, self.start)
        engine.add_event_handler(ContinualEvents.STAGE_PREPARED, self.start)
        engine.add_event_handler(ContinualEvents.STAGE_COMPLETED, self.complete)
        if engine.state.rank == 0:
            shown = sys.stderr.isatty()
            engine.add_event_handler(Events.ITERATION_COMPLETED if shown else Events.EPOCH_COMPLETED, self.show, shown)
            engine.add_event_handler(Events.COMPLETED, self.close)
            engine.add_event_handler(Events.EXCEPTION_RAISED, self.close_after)

    def start(self, engine: ContinualTrainer) -> None:
        """Start the clock."""
        self.started, self.begun_at = time.perf_counter(), engine.state.epoch

    def show(self, engine: ContinualTrainer, on_a_bar: bool) -> None:
        """Show how far the run is, unless that was shown a moment ago."""
        now = time.perf_counter()
        if now - self.said < (PAUSE if on_a_bar else BETWEEN):
            return
        self.said = now
        state, stage = engine.state, engine.current_stage.name.replace("_", " ")
        done = state.epoch - 1 - self.begun_at + ((state.iteration - 1) % state.epoch_length + 1) / state.epoch_length
        left = self.time_left(engine, done / (state.max_epochs - self.begun_at), now - self.started)
        where = (
            f"Task {state.task}/{len(engine.tasks)} {engine.current_task.name}, {stage}, "
            f"epoch {state.epoch}/{state.max_epochs}"
        )
        how = f"loss {state.output['loss'].item():.3f}, {duration(left)} left"
        if on_a_bar:
            self._draw(where, how, now, left)
        else:
            self.logger.info("%s: %s", where, how)

    def _draw(self, where: str, how: str, now: float, left: float) -> None:
        if self.bar is None:
            self.bar = tqdm(total=1.0, bar_format=BAR, leave=False, dynamic_ncols=True)
        spent = sum(stage["seconds"] for stage in self.record.stages) + now - self.started
        self.bar.n = spent / (spent + left)
        self.bar.set_description_str(where, refresh=False)
        self.bar.set_postfix_str(how, refresh=False)
        self.bar.refresh()

    def close(self) -> None:
        """Take the bar away, so that a line can be logged."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def close_after(self, engine: ContinualTrainer, error: BaseException) -> None:
        """Take the bar away before what went wrong is said."""
        self.close()
        raise error

    def complete(self, engine: ContinualTrainer) -> None:
        """Say what the stage did."""
        seconds = time.perf_counter() - self.started
        stage, task = engine.current_stage.name, engine.current_task.name
        self.record.stages.append({"task": task, "stage": stage, "seconds": seconds})
        output = engine.state.output or {}
        loss = f", last loss {output['loss'].item():.3f}" if "loss" in output else ""
        epochs = counted(engine.state.epoch, "epoch")
        done = f"{epochs} of {counted(len(engine.dataset), 'image')}{loss}" if engine.state.epoch else "done"
        self.logger.info(
            "Task %d/%d %s, %s: %s, %.1f s",
            engine.state.task,
            len(engine.tasks),
            task,
            stage.replace("_", " "),
            done,
            seconds,
        )
