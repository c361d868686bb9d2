"""Write the plain network of each task."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scripts.engines.events import ContinualEvents
from scripts.engines.trainer import ContinualTrainer
from scripts.files import DESCRIPTION, WEIGHTS, write_atomically
from scripts.metrics.decision_rules import DecisionRules
from scripts.networks.continual import ContinualNet


class ExportHandler:
    """Keep ``model.pt`` and ``network.json`` of every task, the last one's also in the run's folder.

    Args:
        network: the growing network.
        output_dir: the run's folder; task t (from 0) goes to ``task_<t>``.
        rules: by which the network decides.
        image: how the network sees an image (``size``, ``mean``, ``std``, ``colour_transform``, ``presentation``).
        method: its name.
        data: name of the data set.
    """

    def __init__(
        self,
        network: ContinualNet,
        output_dir: str,
        rules: DecisionRules,
        image: Mapping[str, Any],
        method: str,
        data: str,
    ) -> None:
        self.network = network
        self.output_dir = Path(output_dir)
        seen = {"image_size" if name == "size" else name: value for name, value in image.items()}
        self.description = {**seen, "method": method, "data": data}
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
        description = {**self.network.description(), "tasks": tasks, **self.description, **self.rules.description()}
        for folder in (self.output_dir / f"task_{len(learnt) - 1}", self.output_dir):
            write_model(folder, weights, description)

    def say(self, engine: ContinualTrainer) -> None:
        """Say where the model is."""
        if engine.state.rank == 0:
            self.logger.info("The model is in %s.", self.output_dir)


def write_model(folder: Path, weights: Mapping[str, Tensor], description: Mapping[str, Any]) -> None:
    """Write a plain state dict and what it takes to rebuild its network."""
    state = {key: value.cpu() for key, value in weights.items()}
    write_atomically(folder / WEIGHTS, lambda file: torch.save(state, file))
    write_atomically(folder / DESCRIPTION, json.dumps(description, indent=4) + "\n")
