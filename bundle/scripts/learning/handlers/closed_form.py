"""Keep sums over the features of all images learnt, let them follow the features, and solve the head from them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from scripts.learning.engines.events import ContinualEvents
from scripts.learning.engines.stage import task_and_memory_items
from scripts.learning.engines.trainer import ContinualTrainer
from scripts.learning.features.extractor import FeatureExtractor
from scripts.learning.features.sums import FeatureSums
from scripts.learning.sources.source import Item
from scripts.model.networks.closed_form import drift_map, shrinkage_errors
from scripts.model.networks.continual import ContinualNet
from scripts.model.networks.heads import Ability, Head
from scripts.utils.errors import UserError


class ClosedFormHandler:
    """Add a task's images to the sums once its features are final, and solve the head over all classes.

    Where a merge moves the features, an affine map from old to new ones is fitted on the images at hand (the task and
    the memory), and the sums are carried along. Nothing of an image is kept but its part of the sums.

    Args:
        network: the growing network.
        sums: what is kept; named in ``save``.
        features: computes features.
        shrinkage: of the head, in units of the sums' mean diagonal; ``None``: the one of ``candidates`` that has
            erred least so far on the images of each task in turn, each of them left out of the sums when it was new.
        candidates: values of ``shrinkage``.
        drift_ridge: of the map, in units of the mean diagonal.
        least_images: fewer of a class are refused, since the sums would tell too much of each.

    Raises:
        UserError: when the network has another head.
    """

    def __init__(
        self,
        network: ContinualNet,
        sums: FeatureSums,
        features: FeatureExtractor,
        shrinkage: float | None,
        candidates: Sequence[float],
        drift_ridge: float,
        least_images: int,
    ) -> None:
        network.require(Ability.SOLVED)
        self.network = network
        self.head = network.head
        self.sums = sums
        self.features = features
        self.shrinkage = shrinkage
        self.candidates = candidates
        self.drift_ridge = drift_ridge
        self.least_images = least_images
        self.before: Tensor | None = None
        self.logger = logging.getLogger(__name__)

    def attach(self, engine: ContinualTrainer) -> None:
        """Act around adapter tuning, and in the stage in closed form.

        Raises:
            UserError: when a class has too few images.
        """
        for task in engine.tasks:
            for label, images in Counter(item["label"] for item in task.train).items():
                if images < self.least_images:
                    raise UserError(
                        f"class {task.classes[label - task.first]} of task {task.name} has {images} training images: "
                        "sums over so few tell much of each; add images, or allow it with --ridge#least_images "
                        f"{images}"
                    )
        engine.add_event_handler(ContinualEvents.ADAPTER_TUNING_STARTED, self.remember)
        engine.add_event_handler(ContinualEvents.STAGE_COMPLETED, self.follow)
        engine.add_event_handler(ContinualEvents.CLOSED_FORM_COMPLETED, self)

    def remember(self, engine: ContinualTrainer) -> None:
        """Compute the features that the sums are made of, of the images at hand, while there are such features."""
        if len(self.sums.weights):
            with self.network.through(self.network.settled_branches()):
                self.before = self._vectors(self._at_hand(engine))

    def follow(self, engine: ContinualTrainer) -> None:
        """Carry the sums to where the tuning and the merge have moved the features."""
        if self.before is None:
            return
        vectors, width = self.before.shape
        if vectors < width:
            self.logger.info(
                "The map from old to new features is fitted on %d views of images, fewer than the %d features: "
                "where they say nothing it is the identity.",
                vectors,
                width,
            )
        self.sums.carry(drift_map(self.before, self._vectors(self._at_hand(engine)), self.drift_ridge))
        self.before = None

    @torch.no_grad()
    def __call__(self, engine: ContinualTrainer) -> None:
        """Learn the task's classes."""
        items = engine.current_task.train
        labels = torch.tensor([item["label"] for item in items])
        vectors = self._vectors(items)
        self.sums.add(vectors, labels.repeat_interleave(len(self.sums.views)))
        size = self.sums.kept_bytes() / 2**20
        self.logger.info("The sums over %d features take %.1f MiB.", vectors.shape[1] - 1, size)
        self.sums.shrinkage = self._choose(vectors, labels) if self.shrinkage is None else self.shrinkage
        self.head.solve(self.sums.second, self.sums.first, self.sums.shrinkage)

    def _choose(self, vectors: Tensor, labels: Tensor) -> float:
        images = vectors.unflatten(0, (len(labels), len(self.sums.views)))
        weights = self.sums.weights[labels]
        errors = shrinkage_errors(self.sums.second.sum(0), self.sums.first, images, labels, weights, self.candidates)
        chosen = self.sums.choose(errors)
        self.logger.info("Shrinkage %g has erred least on images left out while they were new.", chosen)
        return chosen

    def _at_hand(self, engine: ContinualTrainer) -> list[Item]:
        return task_and_memory_items(engine.tasks, engine.state.task, engine.memory)

    def _vectors(self, items: Sequence[Item]) -> Tensor:
        return feature_vectors(self.head, self.features, items, self.sums.views)


@torch.no_grad()
def feature_vectors(
    head: Head,
    features: FeatureExtractor,
    items: Sequence[Item],
    views: Sequence[Sequence[int]],
) -> Tensor:
    """Return x = [embedded features, 1] of every view of every image, float64, [N V, D + 1], on the CPU."""
    embedded = head.embed(features(items, views).to(features.device))
    return pad(embedded.cpu().double(), (0, 1), value=1.0)
