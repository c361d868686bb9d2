"""Say in a file how far a run is, for who looks on from another process."""

from __future__ import annotations

import json
from pathlib import Path

from ignite.engine import Events

from scripts.learning.engines.events import ContinualEvents
from scripts.learning.engines.trainer import ContinualTrainer
from scripts.utils.files import write_atomically


class ProgressFileHandler:
    """Write task, stage and epoch, and which of how many stages, as JSON, when a stage starts and after each epoch.

    Args:
        path: the file.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def attach(self, engine: ContinualTrainer) -> None:
        """Act around each epoch."""
        engine.add_event_handler(ContinualEvents.STAGE_PREPARED, self)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: ContinualTrainer) -> None:
        if engine.state.rank > 0:
            return
        progress = {
            "task": engine.current_task.name,
            "stage": engine.current_stage.name,
            "number": engine.stages_completed + 1,
            "stages": len(engine.stages),
            "epoch": engine.state.epoch,
            "epochs": engine.state.max_epochs,
        }
        write_atomically(self.path, json.dumps(progress))
