"""Keep the mean and the covariance of each class, of its features when it was learnt."""

from __future__ import annotations

import torch

from scripts.learning.engines.events import ContinualEvents
from scripts.learning.engines.trainer import ContinualTrainer
from scripts.learning.features.extractor import FeatureExtractor
from scripts.learning.features.sums import FeatureSums
from scripts.learning.handlers.closed_form import feature_vectors
from scripts.model.networks.continual import ContinualNet
from scripts.model.networks.heads import Ability


class ClassStatisticsHandler:
    """Add a task's images to sums of each class once its training is done; those of old classes stay as they were.

    Source: Zhang et al., SLCA (ICCV 2023), section 3.3.

    Args:
        network: the growing network.
        sums: what is kept, classes apart; named in ``save``.
        features: computes features.

    Raises:
        UserError: when the head is not one over all classes.
    """

    def __init__(self, network: ContinualNet, sums: FeatureSums, features: FeatureExtractor) -> None:
        network.require(Ability.LINEAR)
        self.head = network.head
        self.sums = sums
        self.features = features

    def attach(self, engine: ContinualTrainer) -> None:
        """Act when the task's training has ended."""
        engine.add_event_handler(ContinualEvents.TRAINING_COMPLETED, self)

    def __call__(self, engine: ContinualTrainer) -> None:
        """Learn the classes' statistics."""
        items, views = engine.current_task.train, self.sums.views
        labels = torch.tensor([item["label"] for item in items]).repeat_interleave(len(views))
        self.sums.add(feature_vectors(self.head, self.features, items, views), labels)
