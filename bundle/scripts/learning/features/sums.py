"""Sums over the features of all images learnt: all that a head in closed form needs, and no image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from scripts.utils.errors import UserError

FOREIGN = 1e-3  # of an image's own part in the sums: more than rounding explains


class FeatureSums:
    """Weighted sums over feature vectors x: ``G += w_c x'x`` and ``Q_c += w_c x``, in float64 on the CPU.

    x ends with a 1, so that the last entry of Q_c is the weight of what is left of class c. w_c = 1 / n_c is fixed when
    class c is learnt. The size, (d + 1)^2 + C (d + 2) numbers, does not depend on the number of images or tasks.

    Args:
        views: the views of an image that are summed; see :func:`scripts.imaging.transforms.flip_views`.
        apart: keep G of each class apart (FeCAM, and to add the sums of others), which takes C (d + 1)^2 numbers.
        branch: of the network, whose features these are; ``None``: what a pass goes through.

    Attributes:
        second: G, [1, D, D], or [C, D, D] where classes are kept apart.
        first: Q, [C, D].
        weights: w, [C].
        shrinkage: of the head that was last solved from these sums.
        errors: what each shrinkage has erred on the images of all tasks, while they were new.
    """

    def __init__(self, views: Sequence[Sequence[int]] = ((),), apart: bool = False, branch: str | None = None) -> None:
        self.views = [list(view) for view in views]
        self.apart = apart
        self.branch = branch
        self.second = torch.zeros(0, 0, 0, dtype=torch.double)
        self.first = torch.zeros(0, 0, dtype=torch.double)
        self.weights = torch.zeros(0, dtype=torch.double)
        self.shrinkage = 0.0
        self.errors: dict[float, float] = {}

    @property
    def candidates(self) -> list[FeatureSums]:
        """These alone: there is nothing to choose; see :class:`CandidateSums`."""
        return [self]

    @property
    def chosen(self) -> FeatureSums:
        """These."""
        return self

    def add(self, vectors: Tensor, labels: Tensor) -> None:
        """Learn new classes.

        Args:
            vectors: x of every view of every image, float64, [N, D].
            labels: class numbers, [N]: all new classes, each next to the ones known.

        Raises:
            UserError: for features of another width or that are no numbers, or a class without images.
        """
        if not len(self.weights):
            self.second = vectors.new_zeros(0 if self.apart else 1, vectors.shape[1], vectors.shape[1])
            self.first = vectors.new_zeros(0, vectors.shape[1])
        self._check(vectors)
        new = labels.unique().tolist()
        if new != list(range(len(self.weights), len(self.weights) + len(new))):
            raise UserError(f"sums over {len(self.weights)} classes cannot take the classes {new} next: give the next")
        for label in new:
            own = vectors[labels == label]
            weight = 1 / len(own)
            second = (weight * own.T @ own).unsqueeze(0)
            self.second = torch.cat([self.second, second]) if self.apart else self.second + second
            self.first = torch.cat([self.first, weight * own.sum(0, keepdim=True)])
            self.weights = torch.cat([self.weights, torch.tensor([weight], dtype=torch.double)])

    def add_findings(self, vectors: Tensor, targets: Tensor) -> None:
        """Learn new findings, on images that may carry several.

        An image weighs the mean of w_c over its findings, one without any as an image of a class of these alone: with
        one finding an image it is :meth:`add`. Source: Zhang et al., L3A (ICML 2025), whose w_c is the root of ours.

        Args:
            vectors: x of every view of every image, float64, [N, D].
            targets: 1 where an image has a finding, 0 where not, [N, C]; those known come first.

        Raises:
            UserError: as :meth:`add`.
        """
        if not len(self.weights):
            self.second = vectors.new_zeros(1, vectors.shape[1], vectors.shape[1])
            self.first = vectors.new_zeros(0, vectors.shape[1])
        self._check(vectors)
        new = targets[:, len(self.weights) :]
        if not new.sum(0).all():
            raise UserError("a finding without images cannot be learnt: add some")
        self.weights = torch.cat([self.weights, 1 / new.sum(0).double()])
        weighted = self.image_weights(targets).unsqueeze(1) * vectors
        self.second = self.second + (weighted.T @ vectors).unsqueeze(0)
        self.first = torch.cat([self.first, vectors.new_zeros(new.shape[1], vectors.shape[1])])
        self.first = self.first + targets.double().T @ weighted

    def image_weights(self, targets: Tensor) -> Tensor:
        """Return what images weigh in the sums, [N], by what they have, [N, C]; see :meth:`add_findings`."""
        has, none = targets.double(), targets.sum(1) == 0
        weights = has @ self.weights / has.sum(1).clamp(min=1)
        return torch.where(none, 1 / none.sum().clamp(min=1), weights)

    def carry(self, drift: Tensor) -> None:
        """Follow the features where a map A [D, D] takes them: ``G <- A'GA``, ``Q <- QA``."""
        self.second = drift.T @ self.second @ drift
        self.first = self.first @ drift

    def subtract(self, vectors: Tensor, label: int, moved: bool = False) -> None:
        """Forget images of a class; its weight stays.

        Args:
            vectors: x of every view of these images, float64, [N, D].
            label: their class.
            moved: whether the sums have been carried since the class was learnt, so that the vectors are near to what
                was added, not equal to it.

        Raises:
            UserError: when no image of the class would be left, or the images cannot have been added.
        """
        self._check(vectors)
        weight = self.weights[label]
        if self.first[label, -1] - weight * len(vectors) < weight / 2:
            raise UserError("these are as many images as the class has: it cannot be learnt from none, train anew")
        own = label if self.apart else 0
        rest = self.second[own] - weight * vectors.T @ vectors
        part = weight * vectors.square().sum(1).max()
        if not moved and torch.linalg.eigvalsh(rest)[0] < -FOREIGN * part:
            raise UserError("the class was not learnt from these images: nothing is subtracted, give the same files")
        self.second[own] = rest
        self.first[label] -= weight * vectors.sum(0)

    def choose(self, errors: Mapping[float, float]) -> float:
        """Return the shrinkage that has erred least on all tasks.

        Args:
            errors: of each shrinkage on the newest task's images; where these are others than before, what those
                erred is forgotten.
        """
        known = self.errors if self.errors.keys() == errors.keys() else {}
        self.errors = {shrinkage: error + known.get(shrinkage, 0.0) for shrinkage, error in errors.items()}
        return min(self.errors, key=self.errors.__getitem__)

    def of_class(self, label: int) -> tuple[int, Tensor]:
        """Return how many images of a class are in the sums, and the unweighted sum of x'x over their views, [D, D].

        Raises:
            UserError: when the classes are not kept apart.
        """
        if not self.apart:
            raise UserError(
                "the sums of all classes are one, which cannot be weighed anew: train with the part 'federated', such "
                "as --method frozen+levels+ridge+federated"
            )
        views = self.first[label, -1] / self.weights[label]
        return round(float(views) / len(self.views)), self.second[label] / self.weights[label]

    def kept_bytes(self) -> int:
        """Return the bytes of the sums."""
        return sum(tensor.nbytes for tensor in (self.second, self.first, self.weights))

    def state_dict(self) -> dict[str, Any]:
        """Return the sums, for a checkpoint that is loaded with ``weights_only``."""
        tensors = {"second": self.second, "first": self.first, "weights": self.weights}
        plain = {"shrinkage": self.shrinkage, "errors": self.errors, "views": self.views, "apart": self.apart}
        return {**tensors, **plain}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned."""
        self.views, self.apart = state["views"], state["apart"]
        self.second, self.first, self.weights = (state[name].clone() for name in ("second", "first", "weights"))
        self.shrinkage = state["shrinkage"]
        self.errors = dict(state["errors"])

    def _check(self, vectors: Tensor) -> None:
        if vectors.shape[1] != self.first.shape[1]:
            raise UserError(
                f"features of width {vectors.shape[1] - 1} do not fit sums of width {self.first.shape[1] - 1}: "
                "use the same backbone and head"
            )
        if not vectors.isfinite().all():
            raise UserError("features are no numbers (nan or infinite): lower the rate (key 'learning_rates')")
