"""Take BatchNorm's statistics anew after a merge."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from scripts.learning.engines.events import ContinualEvents
from scripts.learning.engines.stage import task_and_memory_items
from scripts.learning.engines.trainer import ContinualTrainer
from scripts.learning.features.extractor import FeatureExtractor
from scripts.learning.sources.source import Item
from scripts.model.networks.continual import ContinualNet
from scripts.model.networks.merging import recalibrate


class BatchNormRecalibrationHandler:
    """Recalibrate the merged adapters' BatchNorm on the current task's images and the memory.

    Args:
        network: the growing network.
        features: reads images, without augmentation.
    """

    def __init__(self, network: ContinualNet, features: FeatureExtractor) -> None:
        self.network = network
        self.features = features

    def attach(self, engine: ContinualTrainer) -> None:
        """Act once the adapters are merged."""
        engine.add_event_handler(ContinualEvents.ADAPTERS_AVERAGED, self)

    def __call__(self, engine: ContinualTrainer) -> None:
        items = task_and_memory_items(engine.tasks, engine.state.task, engine.memory)
        merged = nn.ModuleList(self.network.branch(name) for name in dict.fromkeys(self.network.backbone.branches))
        recalibrate(self.network, merged, mixed_batches(self.features, items))


def mixed_batches(features: FeatureExtractor, items: Sequence[Item]) -> Iterator[Tensor]:
    """Yield batches of images of all classes, the same at every call; a last one of a single image is left out."""
    order = torch.randperm(len(items), generator=torch.Generator().manual_seed(0)).tolist()
    for images in features.images([items[position] for position in order]):
        if len(images) > 1:
            yield images
