"""Tune a task's own adapters with an auxiliary head."""

from __future__ import annotations

from scripts.learning.engines.events import ContinualEvents
from scripts.learning.engines.trainer import ContinualTrainer
from scripts.model.networks.continual import ContinualNet


class AdapterTuningHandler:
    """Give a task its adapters and an auxiliary head (its classes and others), and hand the head's rows over.

    Source: Zhang et al., ACL (MICCAI 2023), stage 1; Qazi et al., DynaMMo (MIUA 2024).

    Args:
        network: the growing network.
    """

    def __init__(self, network: ContinualNet) -> None:
        self.network = network

    def attach(self, engine: ContinualTrainer) -> None:
        """Act before and after the stage."""
        engine.add_event_handler(ContinualEvents.ADAPTER_TUNING_STARTED, self.start)
        engine.add_event_handler(ContinualEvents.ADAPTER_TUNING_SETTLED, self.complete)

    def start(self, engine: ContinualTrainer) -> None:
        """Add adapters, started from the task before's, and a fresh auxiliary head; in a further round go on."""
        self.network.add_adapters()
        self.network.add_auxiliary(self.network.classes[-1] + 1)
        if engine.round:
            self.network.start_auxiliary_from_head()

    def complete(self) -> None:
        """Let the head start from the auxiliary head (all there is in the first task), which is dropped."""
        self.network.start_head_from_auxiliary()
        self.network.drop_auxiliary()
