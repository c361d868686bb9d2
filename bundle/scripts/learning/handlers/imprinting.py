"""Start the rows of new classes where their images are."""

from __future__ import annotations

import numpy as np
import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor
from torch.nn.functional import normalize

from scripts.learning.engines.events import ContinualEvents
from scripts.learning.engines.trainer import ContinualTrainer
from scripts.learning.features.extractor import FeatureExtractor
from scripts.model.networks.continual import ContinualNet
from scripts.model.networks.heads import Ability


class ImprintingHandler:
    """Point each new row at the mean of its class's normalised features, several at the means of as many clusters.

    The rows get the mean length of the old ones. In the first task there are none: its rows start at random.
    Source: Hou et al., UCIR (CVPR 2019), as published; Douillard et al., PODNet (ECCV 2020), as published.

    Args:
        network: the growing network, with a head of cosines.
        features: computes the features of the task's images.

    Raises:
        UserError: when the network has another head.
    """

    def __init__(self, network: ContinualNet, features: FeatureExtractor) -> None:
        network.require(Ability.IMPRINTED)
        self.head = network.head
        self.features = features

    def attach(self, engine: ContinualTrainer) -> None:
        """Act before a task is trained."""
        engine.add_event_handler(ContinualEvents.TRAINING_STARTED, self)

    def __call__(self, engine: ContinualTrainer) -> None:
        task = engine.current_task
        if not task.first:
            return
        directions = normalize(self.features(task.train), dim=1)
        labels = torch.tensor([item["label"] for item in task.train])
        classes = range(task.first, task.first + len(task.classes))
        means = torch.cat([cluster_means(directions[labels == label], self.head.per_class) for label in classes])
        self.head.imprint(normalize(means, dim=1))


def cluster_means(points: Tensor, count: int) -> Tensor:
    """Return the means of ``count`` clusters of points [N, d], [count, d]; of fewer points some come twice.

    By k-means, whose start is seeded: equal points have equal clusters.
    """
    array = points.double().numpy()
    clusters = min(count, len(np.unique(array, axis=0)))
    means = torch.from_numpy(kmeans2(array, clusters, minit="++", seed=0)[0]).to(points)
    return means[torch.arange(count) % clusters]
