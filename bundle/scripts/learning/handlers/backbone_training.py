"""Train an untrained backbone on the first task, before it is frozen."""

from __future__ import annotations

import logging

from ignite.engine import Engine

from scripts.learning.engines.events import ContinualEvents
from scripts.model.networks.continual import ContinualNet


class BackboneTrainingHandler:
    """Give the network a plain head for its first task while the whole of it learns.

    Args:
        network: the growing network.
    """

    def __init__(self, network: ContinualNet) -> None:
        self.network = network
        self.logger = logging.getLogger(__name__)

    def attach(self, engine: Engine) -> None:
        """Act before and after the stage."""
        engine.add_event_handler(ContinualEvents.BACKBONE_TRAINING_STARTED, self.start)
        engine.add_event_handler(ContinualEvents.BACKBONE_TRAINING_COMPLETED, self.complete)

    def start(self) -> None:
        """Start a plain head for the first task."""
        self.network.add_auxiliary(self.network.classes[-1])
        self.logger.info("No pretrained weights: the backbone learns the first task, then it is frozen.")

    def complete(self) -> None:
        """Drop the plain head."""
        self.network.drop_auxiliary()
