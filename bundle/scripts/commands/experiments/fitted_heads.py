"""Heads that are fitted on the features of a finished run, after each task in turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot, pad

from scripts.learning.features.sums import FeatureSums
from scripts.model.networks.closed_form import drift_map, shrinkage_errors
from scripts.model.networks.heads import UnifiedHead


@dataclass(frozen=True)
class Learnt:
    """What a head is fitted on after a task.

    Attributes:
        classes: number of classes of each task learnt.
        features: of all training images of these, [N, d], merged.
        labels: their class numbers, [N].
        exemplars: which of them are in the balanced memory.
        auxiliary: the newest task's auxiliary head, as its tuning left it.
        moved: features of the newest task's and the memory's images before the last merge, and after it; ``None``:
            there was none before.
        seed: of what is drawn by chance.
    """

    classes: tuple[int, ...]
    features: Tensor
    labels: Tensor
    exemplars: Tensor
    auxiliary: Mapping[str, Tensor]
    moved: tuple[Tensor, Tensor] | None = None
    seed: int = 0


Head = Callable[[Learnt], Callable[[Tensor], Tensor]]
"""Called after each task in turn; returns what maps features [N, d] to scores [N, C]."""


def unified_head(width: int, get: Callable[[str], Any]) -> Head:
    """Fine-tune one linear layer on the exemplars, as the run does but for augmentation; the first task's is as tuned.

    Source: Qazi et al., DynaMMo (MIUA 2024), balanced fine-tuning.
    """
    epochs, batch_size = get("finetune_epochs"), get("batch_size")
    make_optimizer, make_schedule = get("balanced_finetuning#optimizer"), get("balanced_finetuning#scheduler")
    head = UnifiedHead(width)

    @torch.enable_grad()
    def fit(learnt: Learnt) -> Callable[[Tensor], Tensor]:
        torch.manual_seed(learnt.seed)
        head.grow(learnt.classes[-1])
        auxiliary = torch.nn.Linear(width, len(learnt.auxiliary["weight"]))
        auxiliary.load_state_dict(learnt.auxiliary)
        head.start_from(auxiliary, learnt.classes[-1])
        optimizer = make_optimizer(list(head.parameters()))
        schedule = make_schedule(optimizer, epochs=epochs)
        for _ in range(epochs if len(learnt.classes) > 1 else 0):
            for rows in learnt.exemplars[torch.randperm(len(learnt.exemplars))].split(batch_size):
                optimizer.zero_grad()
                cross_entropy(head(learnt.features[rows].unsqueeze(1)), learnt.labels[rows]).backward()
                optimizer.step()
            schedule.step()
        return lambda features: head(features.unsqueeze(1)).detach()

    return fit


def ridge_head(width: int, get: Callable[[str], Any]) -> Head:
    """Keep sums, let them follow each merge, and solve ridge regression: see ``ClosedFormHandler``."""
    sums, head = FeatureSums(), UnifiedHead(width)

    def fit(learnt: Learnt) -> Callable[[Tensor], Tensor]:
        if learnt.moved is not None:
            before, after = map(with_one, learnt.moved)
            sums.carry(drift_map(before, after, get("ridge#drift_ridge")))
        new = learnt.labels >= sum(learnt.classes[:-1])
        return _solve(head, sums, learnt.features[new], learnt.labels[new], get)

    return fit


def ridge_bound(width: int, get: Callable[[str], Any]) -> Head:
    """Fit ridge regression on all training images of all tasks learnt: no method may see these, so it is a bound."""
    head = UnifiedHead(width)

    def fit(learnt: Learnt) -> Callable[[Tensor], Tensor]:
        return _solve(head, FeatureSums(), learnt.features, learnt.labels, get)

    return fit


def with_one(features: Tensor) -> Tensor:
    """Return x = [f, 1], float64, [N, d + 1], of features f [N, d]."""
    return pad(features.double(), (0, 1), value=1.0)


@torch.no_grad()
def _solve(
    head: UnifiedHead, sums: FeatureSums, features: Tensor, labels: Tensor, get: Callable[[str], Any]
) -> Callable[[Tensor], Tensor]:
    """Add images of new classes to the sums, and solve the head; the shrinkage is chosen as in training."""
    vectors = with_one(features)
    sums.add(vectors, labels)
    head.grow(len(sums.weights) - head.linear.out_features)
    shrinkage = get("ridge#shrinkage")
    if shrinkage is None:
        known = (vectors.unsqueeze(1), one_hot(labels, len(sums.weights)), sums.weights[labels])
        errors = shrinkage_errors(sums.second.sum(0), sums.first, *known, get("ridge#candidates"))
        shrinkage = sums.choose(errors)
    head.solve(sums.second, sums.first, shrinkage)
    return lambda features: head(features.unsqueeze(1))


HEADS: dict[str, Callable[[int, Callable[[str], Any]], Head]] = {
    "unified": unified_head,
    "ridge": ridge_head,
    "BOUND": ridge_bound,
}
"""By name, what makes each for features of a width, and with what a config says of a key."""
