"""Choose the exemplars of a task, and make room for the next."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from scripts.learning.engines.events import ContinualEvents
from scripts.learning.engines.trainer import ContinualTrainer
from scripts.learning.features.extractor import FeatureExtractor
from scripts.learning.memory.exemplars import ExemplarMemory
from scripts.model.networks.continual import ContinualNet


class MemoryHandler:
    """Fill the memory with a task's exemplars before balanced fine-tuning (or at the task's end) and cut it down after.

    For the balanced set the new classes keep as many images as each old one has; once the task is learnt every class
    keeps its share of the memory's size.

    Args:
        memory: the exemplar memory.
        network: the growing network.
        features: computes the features that the selection reads.
    """

    def __init__(self, memory: ExemplarMemory, network: ContinualNet, features: FeatureExtractor) -> None:
        self.memory = memory
        self.network = network
        self.features = features

    def attach(self, engine: ContinualTrainer) -> None:
        """Act before balanced fine-tuning and at the end of a task; not for a memory that fills itself."""
        if self.memory.fills_itself:
            return
        engine.add_event_handler(ContinualEvents.BALANCED_FINETUNING_STARTED, self.select)
        engine.add_event_handler(ContinualEvents.TASK_COMPLETED, self.complete)

    def select(self, engine: ContinualTrainer) -> None:
        """Choose the exemplars of the current task's classes."""
        task = engine.current_task
        if self.memory.empty or task.first in self.memory.classes:
            return
        count = self.memory.quota(task.first or len(task.classes))
        with self._space():
            self.memory.add(task.train, self.features(task.train), count)

    def complete(self, engine: ContinualTrainer) -> None:
        """Leave every class its share of the memory."""
        self.select(engine)
        self.memory.reduce(self.memory.quota(sum(self.network.classes)))
        engine.fire_event(ContinualEvents.MEMORY_UPDATED)

    def _space(self) -> Any:
        adapters = self.network.adapter_branches()
        if self.memory.space == "newest" and adapters:
            return self.network.through(adapters[-1:])
        return nullcontext()
