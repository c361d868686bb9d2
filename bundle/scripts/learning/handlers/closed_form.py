"""Keep sums over the features of all images learnt, let them follow the features, and solve the head from them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot, pad

from scripts.learning.engines.events import ContinualEvents
from scripts.learning.engines.stage import task_and_memory_items
from scripts.learning.engines.trainer import ContinualTrainer
from scripts.learning.features.candidates import CandidateSums
from scripts.learning.features.extractor import FeatureExtractor
from scripts.learning.features.sums import FeatureSums
from scripts.learning.sources.source import Item
from scripts.learning.tasks.labels import UNKNOWN, findings_of, has_findings, numbers_of
from scripts.model.decisions import DecisionRules
from scripts.model.networks.adapters import MERGED
from scripts.model.networks.closed_form import class_errors, drift_map, middle_scores, ridge, shrinkage_errors
from scripts.model.networks.continual import ContinualNet
from scripts.model.networks.heads import Ability, Head
from scripts.utils.errors import UserError
from scripts.utils.words import counted


class ClosedFormHandler:
    """Add a task's images to the sums once its features are final, and solve the head over all classes.

    Where a merge moves the features, an affine map from old to new ones is fitted on the images at hand (the task and
    the memory), and the sums are carried along. Nothing of an image is kept but its part of the sums.

    Where there are sums of several candidates, the head is solved from those that the error on images left out chooses,
    and passes go through their branch from then on.

    Where images carry several findings, nobody has looked for those learnt before in the images of a new task: the head
    before fills them in, where it would call them present. Source: Zhang et al., L3A (ICML 2025), whose bound is one
    for all findings.

    Args:
        network: the growing network.
        sums: what is kept, of one kind of features or of several; named in ``save``.
        features: computes features.
        shrinkage: of the head, in units of the sums' mean diagonal; ``None``: the one of ``candidates`` that has
            erred least so far on the images of each task in turn, each of them left out of the sums when it was new.
        candidates: values of ``shrinkage``.
        drift_ridge: of the map, in units of the mean diagonal.
        least_images: fewer of a class are refused, since the sums would tell too much of each.
        rules: take the score of each finding that tells it present.

    Raises:
        UserError: when the network has another head, or none of the features that a candidate is of.
    """

    def __init__(
        self,
        network: ContinualNet,
        sums: FeatureSums | CandidateSums,
        features: FeatureExtractor,
        shrinkage: float | None,
        candidates: Sequence[float],
        drift_ridge: float,
        least_images: int,
        rules: DecisionRules | None = None,
    ) -> None:
        network.require(Ability.SOLVED)
        if isinstance(sums, CandidateSums):
            network.require(Ability.LINEAR)  # candidates are judged by ridge regression
            check_branches(network, sums)
        self.network = network
        self.head = network.head
        self.sums = sums
        self.features = features
        self.shrinkage = shrinkage
        self.candidates = candidates
        self.drift_ridge = drift_ridge
        self.least_images = least_images
        self.rules = rules
        self.before: list[Tensor] = []
        self.logger = logging.getLogger(__name__)

    def attach(self, engine: ContinualTrainer) -> None:
        """Act around adapter tuning, and in the stage in closed form.

        Raises:
            UserError: when a class has too few images, or images carry several findings and classes are kept apart.
        """
        if self.sums.chosen.apart and any(task.has_findings for task in engine.tasks):
            raise UserError("an image with several findings has no class of its own: leave the part 'federated' out")
        for task in engine.tasks:
            for label, images in Counter(number for item in task.train for number in numbers_of(item)).items():
                if label >= task.first and images < self.least_images:
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
        if len(self.sums.chosen.weights):
            with self.network.through(self.network.settled_branches()):
                self.before = self._vectors(self._at_hand(engine))

    def follow(self, engine: ContinualTrainer) -> None:
        """Carry the sums to where the tuning and the merge have moved the features."""
        if not self.before:
            return
        vectors, width = self.before[0].shape
        if vectors < width:
            self.logger.info(
                "The map from old to new features is fitted on %d views of images, fewer than the %d features: "
                "where they say nothing it is the identity.",
                vectors,
                width,
            )
        after = self._vectors(self._at_hand(engine))
        for own, old, new in zip(self.sums.candidates, self.before, after, strict=True):
            own.carry(self.drift(old, new))
        self.before = []

    def drift(self, before: Tensor, after: Tensor) -> Tensor:
        """Return the map from old to new features, [D, D], as the images at hand have moved, [N V, D]."""
        return drift_map(before, after, self.drift_ridge)

    @torch.no_grad()
    def __call__(self, engine: ContinualTrainer) -> None:
        """Learn the task's classes."""
        items = engine.current_task.train
        errors = [self._learn(own, items) for own in self.sums.candidates]
        chosen = self._judge(self.sums, errors) if isinstance(self.sums, CandidateSums) else self.sums
        size, width = self.sums.kept_bytes() / 2**20, chosen.first.shape[1] - 1
        self.logger.info("The sums over %d features take %.1f MiB.", width, size)
        if self.shrinkage is None:
            said = "Shrinkage %g has erred least on images left out while they were new."
            self.logger.info(said, chosen.shrinkage)
        self.head.solve(chosen.second, chosen.first, chosen.shrinkage)
        if has_findings(items) and self.rules is not None:
            self.rules.thresholds = findings_head(chosen)[1].tolist()

    def _learn(self, sums: FeatureSums, items: Sequence[Item]) -> list[float]:
        """Add images of new classes, choose the shrinkage, and return the error on each class by which to judge."""
        known, views = len(sums.weights), len(sums.views)
        vectors = candidate_vectors(self.network, self.features, items, sums)
        targets = self._add(sums, items, vectors)
        images = vectors.unflatten(0, (len(items), views))
        weights = sums.image_weights(targets.repeat_interleave(views, 0))[::views]
        seen = (sums.second.sum(0), sums.first, images, targets, weights)
        given = self.shrinkage
        sums.shrinkage = sums.choose(shrinkage_errors(*seen, self.candidates)) if given is None else given
        if isinstance(self.sums, FeatureSums):
            return []
        return class_errors(*seen, sums.shrinkage, self.sums.shared)[known:].tolist()

    def _add(self, sums: FeatureSums, items: Sequence[Item], vectors: Tensor) -> Tensor:
        """Add images to the sums, and return 1 where one has a class, or a finding, and 0 where not, [N, C]."""
        if has_findings(items):
            targets = self._filled(sums, items, vectors)
            sums.add_findings(vectors, targets.repeat_interleave(len(sums.views), 0))
            return targets
        labels = torch.tensor([item["label"] for item in items])
        sums.add(vectors, labels.repeat_interleave(len(sums.views)))
        return one_hot(labels, len(sums.weights))

    def _filled(self, sums: FeatureSums, items: Sequence[Item], vectors: Tensor) -> Tensor:
        """Return what the images have, [N, C], of the findings learnt before what the head says of all their views."""
        said = findings_of(items, sum(self.network.classes))
        known = len(sums.weights)
        if known:
            head, thresholds = findings_head(sums)
            scores = (vectors @ head.T).unflatten(0, (len(items), -1)).mean(1)
            filled = (scores >= thresholds).to(said)
            self.logger.info("Of findings learnt before, %d are filled in for %d images.", filled.sum(), len(items))
            said[:, :known] = torch.where(said[:, :known] == UNKNOWN, filled, said[:, :known])
        return said.clamp(min=0)

    def _judge(self, sums: CandidateSums, errors: Sequence[Sequence[float]]) -> FeatureSums:
        """Choose among the candidates, say how, and pass through the branch of the one chosen."""
        for verdict in sums.judge(errors, self.network.tuned_classes()):
            self.logger.info("%s", said_of(verdict))
        if sums.chosen.branch is not None:
            self.network.pass_through(sums.chosen.branch)
        return sums.chosen

    def _at_hand(self, engine: ContinualTrainer) -> list[Item]:
        return task_and_memory_items(engine.tasks, engine.state.task, engine.memory)

    def _vectors(self, items: Sequence[Item]) -> list[Tensor]:
        """Return x of every view of every image, of each candidate, [N V, D]."""
        return [candidate_vectors(self.network, self.features, items, own) for own in self.sums.candidates]


def findings_head(sums: FeatureSums) -> tuple[Tensor, Tensor]:
    """Return the head [C, D] that sums give, and from which of its scores on each finding is present, [C]."""
    head = ridge(sums.second[0], sums.first, sums.shrinkage)
    return head, middle_scores(sums.second[0], sums.first, head)


def check_branches(network: ContinualNet, sums: CandidateSums) -> None:
    """Refuse candidates of merged adapters where none are merged.

    Raises:
        UserError: says so.
    """
    merges = network.backbone.adapter is not None and not network.gathers
    if not merges and any(own.branch == MERGED for own in sums.candidates):
        raise UserError(
            "tuned features are to be judged, but no adapters are tuned and merged: list part 'judged' behind a method "
            "that has some, such as dynammo+lora+levels+ridge+judged (key 'sums#branches')"
        )


def said_of(verdict: Mapping[str, Any]) -> str:
    """Return one line about a verdict of :meth:`scripts.learning.features.CandidateSums.judge`."""
    head = f"Candidate '{verdict['candidate']}' against '{verdict['against']}': "
    taken = "taken" if verdict["taken"] else "not taken"
    if verdict["standard_error"] is None:
        return f"{head}{counted(verdict['classes'], 'class', 'classes')} to judge by; {taken}."
    return (
        f"{head}the error on images left out falls by {100 * verdict['gain']:.2f} ± "
        f"{100 * verdict['standard_error']:.2f} % on {counted(verdict['classes'], 'class', 'classes')}; {taken}."
    )


def candidate_vectors(
    network: ContinualNet, features: FeatureExtractor, items: Sequence[Item], sums: FeatureSums
) -> Tensor:
    """Return what :func:`feature_vectors` does, of the features and the views that the sums are of."""
    with network.through(network.backbone.branches if sums.branch is None else [sums.branch]):
        return feature_vectors(network.head, features, items, sums.views)


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
