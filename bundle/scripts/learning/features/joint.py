"""Ridge regression on the training images of all tasks at once: a bound for heads, and a judge of labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from scripts.learning.features.extractor import FeatureExtractor
from scripts.learning.features.sums import FeatureSums
from scripts.learning.sources.source import Item
from scripts.learning.tasks.labels import require_one_class
from scripts.learning.tasks.task import Task
from scripts.model.networks.closed_form import leave_one_out, ridge, shrinkage_errors
from scripts.model.networks.heads import Head
from scripts.utils.errors import UserError


class JointRidge:
    """Ridge regression on all training images of all tasks, in the features that a network has now.

    On features that never moved it is the head that keeps sums. Where they did it is what no continual learner may
    see: the bound of a head on these features.

    Args:
        head: embeds what it reads of the features.
        features: computes them, of a network of one pass.
        tasks: whose images are learnt.
        views: of each image; see :func:`scripts.imaging.transforms.flip_views`.
        candidates: of the shrinkage; the one that errs least by leave-one-out is taken.
        shrinkage: the one to take, if it is known.

    Attributes:
        items: the images, N.
        labels: their class numbers, [N].
        vectors: x of each view of each, float64, [N, V, D].
        shrinkage: see there.

    Raises:
        UserError: where the network has a branch a task, or images carry several findings.
    """

    def __init__(
        self,
        head: Head,
        features: FeatureExtractor,
        tasks: Sequence[Task],
        views: Sequence[Sequence[int]],
        candidates: Sequence[float],
        shrinkage: float | None = None,
    ) -> None:
        if len(features.network.backbone.branches) > 1:
            raise UserError("the network passes through a branch a task: give a run whose network is one pass")
        self.head = head
        self.features = features
        self.items = [item for task in tasks for item in task.train]
        require_one_class(self.items, "ridge regression on all images")
        self.labels = torch.tensor([item["label"] for item in self.items])
        self.vectors = self._vectors(self.items, views)
        self.sums = FeatureSums(views)
        self.sums.add(self.vectors.flatten(0, 1), self.labels.repeat_interleave(len(views)))
        second, first = self.sums.second[0], self.sums.first
        if shrinkage is None:
            shrinkage = self.sums.choose(shrinkage_errors(second, first, *self._known(), candidates))
        self.shrinkage = shrinkage

    def classify(self, items: Sequence[Item]) -> Tensor:
        """Return the scores of images, [N, C]."""
        weights = ridge(self.sums.second[0], self.sums.first, self.shrinkage)
        return self._vectors(items, [()])[:, 0] @ weights.T

    def left_out(self) -> Tensor:
        """Return what each training image scores, the mean over its views, when all but it are learnt, [N, C]."""
        return leave_one_out(self.sums.second[0], self.sums.first, *self._known(), self.shrinkage).mean(1)

    def _known(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return vectors, targets and weights of the images."""
        return self.vectors, one_hot(self.labels, len(self.sums.weights)), self.sums.weights[self.labels]

    @torch.no_grad()
    def _vectors(self, items: Sequence[Item], views: Sequence[Sequence[int]]) -> Tensor:
        features = self.features.features(items, views).flatten(0, 1).flatten(1)
        embedded = self.head.embed(features.to(self.features.device)).cpu().double()
        ones = embedded.new_ones(len(embedded), 1)
        return torch.cat([embedded, ones], 1).unflatten(0, (len(items), len(views)))
