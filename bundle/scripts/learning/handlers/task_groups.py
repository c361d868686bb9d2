"""Measure what the frozen backbone makes of a task, to know which tasks are alike."""

from __future__ import annotations

import torch
from torch import Tensor

from scripts.learning.engines.events import ContinualEvents
from scripts.learning.engines.trainer import ContinualTrainer
from scripts.learning.features.extractor import FeatureExtractor
from scripts.learning.handlers.separate_adapters import check_apart
from scripts.model.networks import PLAIN, ContinualNet, TaskGroups


class TaskGroupsHandler:
    """Note the class means of a task's images on the plain backbone, before adapters are merged a group.

    Args:
        network: the growing network, with ``others`` heads, of which each reads the features of its task's group.
        groups: keeps what is measured.
        features: computes features.

    Raises:
        UserError: when the network has one head over all classes, or adapters that fold into one backbone.
    """

    def __init__(self, network: ContinualNet, groups: TaskGroups, features: FeatureExtractor) -> None:
        check_apart(network)
        self.network = network
        self.groups = groups
        self.features = features

    def attach(self, engine: ContinualTrainer) -> None:
        """Act once a task's adapters are tuned; groups that are given need nothing, but one for each task.

        Raises:
            UserError: when a task has no group.
        """
        if self.groups.given is None:
            engine.add_event_handler(ContinualEvents.ADAPTER_TUNING_COMPLETED, self)
        else:
            self.groups.of(len(engine.tasks))

    def __call__(self, engine: ContinualTrainer) -> None:
        items = engine.current_task.train
        with self.network.through([PLAIN]):
            features = self.features.features(items)[:, 0, 0]
        self.groups.put(len(self.network.classes) - 1, class_mean(features, [item["label"] for item in items]))


def class_mean(features: Tensor, labels: list[int]) -> Tensor:
    """Return the mean over classes of the mean of their features [N, d], [d]."""
    classes = torch.tensor(labels)
    return torch.stack([features[classes == label].mean(0) for label in sorted(set(labels))]).mean(0)
