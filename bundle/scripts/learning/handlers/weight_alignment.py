"""Make the head's new rows as long as its old ones."""

from __future__ import annotations

import torch

from scripts.learning.engines.events import ContinualEvents
from scripts.learning.engines.trainer import ContinualTrainer
from scripts.model.networks.continual import ContinualNet


class WeightAlignmentHandler:
    """Scale the new classes' weights by mean norm of the old over mean norm of the new; the biases stay.

    Source: Zhao et al., Maintaining discrimination and fairness in class incremental learning (CVPR 2020), eq. 6-7.

    Args:
        network: the growing network, with one head over all classes.
    """

    def __init__(self, network: ContinualNet) -> None:
        self.network = network

    def attach(self, engine: ContinualTrainer) -> None:
        """Act once a task is trained."""
        engine.add_event_handler(ContinualEvents.TRAINING_COMPLETED, self)

    @torch.no_grad()
    def __call__(self, engine: ContinualTrainer) -> None:
        """Align; the first task has no old classes."""
        first = engine.current_task.first
        if first:
            weight = self.network.linear_layer().weight
            norms = weight.norm(dim=1)
            weight[first:] *= norms[:first].mean() / norms[first:].mean()
