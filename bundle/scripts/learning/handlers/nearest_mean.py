"""Take each class's mean from its exemplars."""

from __future__ import annotations

import torch
from ignite.engine import Engine
from torch.nn.functional import normalize

from scripts.learning.engines.events import ContinualEvents
from scripts.learning.features.extractor import FeatureExtractor
from scripts.learning.memory.exemplars import ExemplarMemory
from scripts.model.networks.continual import ContinualNet
from scripts.model.networks.heads import Ability


class NearestMeanHandler:
    """Compute the means that the head ``nearest_mean`` decides by, anew for all classes once a task is learnt.

    A class without exemplars keeps the mean it had. Source: Rebuffi et al., iCaRL (CVPR 2017), algorithm 1.

    Args:
        network: the growing network.
        memory: the exemplar memory.
        features: computes the features of exemplars.

    Raises:
        UserError: when the network has another head.
    """

    def __init__(self, network: ContinualNet, memory: ExemplarMemory, features: FeatureExtractor) -> None:
        network.require(Ability.MEANS)
        self.head = network.head
        self.memory = memory
        self.features = features

    def attach(self, engine: Engine) -> None:
        """Act once the memory holds what it keeps of a task."""
        engine.add_event_handler(ContinualEvents.MEMORY_UPDATED, self)

    @torch.no_grad()
    def __call__(self) -> None:
        """Compute the means."""
        kept = {label: items for label, items in self.memory.classes.items() if items}
        features = self.features([item for items in kept.values() for item in items])
        for label, own in zip(kept, features.split([len(items) for items in kept.values()]), strict=True):
            self.head.take_mean(label, normalize(normalize(own, dim=1).mean(0), dim=0))
