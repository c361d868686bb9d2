"""Learn each later task with a backbone of its own beside the frozen ones of the tasks before."""

from __future__ import annotations

from scripts.learning.engines.events import ContinualEvents
from scripts.learning.engines.trainer import ContinualTrainer
from scripts.model.networks.continual import ContinualNet


class BackboneExpansionHandler:
    """Add a backbone and an auxiliary head for the stage ``training``, and a fresh head for balanced fine-tuning.

    Source: Yan et al., DER: Dynamically expandable representation for class incremental learning (CVPR 2021),
    without pruning. The auxiliary head's output for all old classes is its last, where the paper's is its first.

    Args:
        network: the growing network, with a backbone a task.
    """

    def __init__(self, network: ContinualNet) -> None:
        self.network = network

    def attach(self, engine: ContinualTrainer) -> None:
        """Act around the first stage and before the second."""
        engine.add_event_handler(ContinualEvents.TRAINING_STARTED, self.start)
        engine.add_event_handler(ContinualEvents.TRAINING_COMPLETED, self.network.drop_auxiliary)
        engine.add_event_handler(ContinualEvents.BALANCED_FINETUNING_STARTED, self.refresh)

    def start(self, engine: ContinualTrainer) -> None:
        """Expand; the first task has the backbone that was there."""
        if engine.state.task > 1:
            self.network.add_adapters()
            self.network.add_auxiliary(self.network.classes[-1] + 1)

    def refresh(self) -> None:
        """Forget what the head learnt from unequally many images of old and new classes."""
        self.network.linear_layer().reset_parameters()
