"""Write the plain network of each task."""

from __future__ import annotations

import logging
from pathlib import Path

from scripts.imaging.image_spec import ImageSpec
from scripts.learning.engines.events import ContinualEvents
from scripts.learning.engines.trainer import ContinualTrainer
from scripts.model.decisions import DecisionRules
from scripts.model.folder import write_model
from scripts.model.networks.continual import ContinualNet


class ExportHandler:
    """Keep ``model.pt`` and ``network.json`` of every task, the last one's also in the run's folder.

    Args:
        network: the growing network.
        output_dir: the run's folder; task t (from 0) goes to ``task_<t>``.
        rules: by which the network decides.
        image: how the network sees an image.
        method: its name.
        data: name of the data set.
    """

    def __init__(
        self,
        network: ContinualNet,
        output_dir: str,
        rules: DecisionRules,
        image: ImageSpec,
        method: str,
        data: str,
    ) -> None:
        self.network = network
        self.output_dir = Path(output_dir)
        self.described = {"image": image.record(), "method": method, "data": data}
        self.rules = rules
        self.logger = logging.getLogger(__name__)

    def attach(self, engine: ContinualTrainer) -> None:
        """Act after each evaluation and at the end."""
        engine.add_event_handler(ContinualEvents.TASK_EVALUATED, self.write)
        engine.add_event_handler(ContinualEvents.RUN_COMPLETED, self.say)

    def write(self, engine: ContinualTrainer) -> None:
        """Write the network as it is now."""
        if engine.state.rank > 0:
            return
        learnt = engine.tasks[: engine.state.task]
        tasks = [{"name": task.name, "classes": list(task.classes)} for task in learnt]
        weights = self.network.merge_and_unload(tasks).state_dict()
        description = {**self.network.description(), "tasks": tasks, **self.described, **self.rules.description()}
        for folder in (self.output_dir / f"task_{len(learnt) - 1}", self.output_dir):
            write_model(folder, weights, description)

    def say(self, engine: ContinualTrainer) -> None:
        """Say where the model is."""
        if engine.state.rank == 0:
            self.logger.info("The model is in %s.", self.output_dir)
