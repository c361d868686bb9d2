"""What a head is: from the features of one or more branches to a score for every class seen so far."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from enum import StrEnum
from typing import ClassVar

from torch import Tensor, nn

from scripts.model.networks.registry import Registry
from scripts.utils.errors import UserError

# what a head reads of the backbone: the mean of the last map, the same without the last activation, or maps before it
RECTIFIED, SIGNED, LEVELS = "rectified", "signed", "levels"


class Ability(StrEnum):
    """What a method may ask of a head."""

    JOINT = "one head over all classes"
    LINEAR = "one linear layer over all classes"
    SOLVED = "a head that can be solved"
    MEANS = "a head of class means"
    IMPRINTED = "a head whose rows are directions"
    FINDINGS = "a head with a score of its own for each of several findings"


class Head(nn.Module):
    """A head that grows a task at a time.

    Args:
        width: features of one branch.
        classes: number of classes of each task learnt so far.

    Attributes:
        reads: :data:`RECTIFIED`, :data:`SIGNED` or :data:`LEVELS`.
        concatenates: whether it reads all branches at once, [B, R, d], of a backbone that grows.
        apart: whether it reads a branch a task.
        abilities: what it can do beyond.
        per_class: rows of each class.
        has_covariances: whether it is solved from the sums of each class apart.
    """

    reads: ClassVar[str] = RECTIFIED
    concatenates: ClassVar[bool] = False
    apart: ClassVar[bool] = False
    abilities: ClassVar[frozenset[Ability]] = frozenset()
    per_class: int = 1
    has_covariances: ClassVar[bool] = False

    @abstractmethod
    def __init__(self, width: int, classes: Sequence[int] = ()) -> None:
        super().__init__()

    @abstractmethod
    def grow(self, num_classes: int) -> None:
        """Make room for ``num_classes`` new classes."""

    def start_from(self, auxiliary: nn.Linear, num_classes: int) -> None:
        """Take what it can from an auxiliary head of ``num_classes + 1`` outputs, whose last one is ``others``."""

    def embed(self, features: Tensor) -> Tensor:
        """Map features [N, d] to what is summed and compared, [N, D]."""
        return features

    def embedding(self, features: Tensor) -> Tensor:
        """Map features [N, R, d] to what herding reads, [N, D]."""
        return features.flatten(1)

    def extras(self, features: Tensor) -> dict[str, Tensor]:
        """Return what losses and metrics read beside the logits; see :class:`scripts.model.networks.Outputs`."""
        return {}

    def newest(self) -> list[nn.Module]:
        """Return what learns while the rows of old classes stay as they are."""
        return []

    def linear_layer(self) -> nn.Linear:
        """Return the layer of a head that can :attr:`Ability.LINEAR`; it is another one once the head has grown."""
        raise NotImplementedError

    def solve(self, second: Tensor, first: Tensor, shrinkage: float) -> None:
        """Take the answer in closed form (:attr:`Ability.SOLVED`).

        Args:
            second: sums of x'x, x an embedded image and a 1, [1, D + 1, D + 1], or of each class, [C, D + 1, D + 1].
            first: sum of x of each class, [C, D + 1].
            shrinkage: of the answer.
        """
        raise NotImplementedError

    def take_mean(self, label: int, mean: Tensor) -> None:
        """Take the mean of a class (:attr:`Ability.MEANS`).

        Args:
            label: number of the class.
            mean: of length 1, [d].
        """
        raise NotImplementedError

    def imprint(self, directions: Tensor) -> None:
        """Point the newest task's rows (:attr:`Ability.IMPRINTED`), as long as the old ones.

        Args:
            directions: :attr:`per_class` of each class, of length 1, [n K, d].
        """
        raise NotImplementedError


HEADS: Registry[type[Head]] = Registry("head", "network_def#head")


def require(name: str, ability: Ability) -> None:
    """Refuse a head that lacks what a method asks for.

    Args:
        name: of the head.
        ability: what is asked for.

    Raises:
        UserError: names the heads that have it.
    """
    if ability not in HEADS.find(name).abilities:
        able = [other for other, kind in HEADS.items() if ability in kind.abilities]
        raise UserError(
            f"this method needs {ability}, not '{name}': choose one of {', '.join(able)} (key 'network_def#head')"
        )
