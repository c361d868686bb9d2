"""Which tasks are alike, so that the adapters of each group are merged into a set of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from scipy.cluster.hierarchy import fcluster, linkage
from torch import Tensor
from torch.nn.functional import normalize

from scripts.utils.errors import UserError


class TaskGroups:
    """The group of each task: given, or found anew with each task by hierarchical clustering (average linkage).

    Args:
        count: at most so many groups are found, 1 or more.
        given: the number of the group of each task, in the order learnt; ``None``: they are found.

    Attributes:
        means: what the plain backbone makes of each task, [d]: the mean of its class means; no image.

    Raises:
        UserError: for a count below 1.
    """

    def __init__(self, count: int = 2, given: Sequence[int] | None = None) -> None:
        if count < 1:
            raise UserError(f"tasks cannot be in {count} groups: use at least 1 (key 'groups#count')")
        self.count = count
        self.given = given
        self.means: list[Tensor] = []

    def put(self, task: int, mean: Tensor) -> None:
        """Keep what was measured of a task, from 0, in place of what is known of it."""
        self.means[task:] = [mean]

    def of(self, tasks: int) -> list[int]:
        """Return the number of the group of each of so many tasks; found ones are numbered as they come, from 0.

        Raises:
            UserError: where a task has no group.
        """
        if self.given is not None:
            if len(self.given) < tasks or min(self.given, default=0) < 0:
                raise UserError(
                    f"{list(self.given)} says no group of each of {tasks} tasks: give a number from 0 a task (key "
                    "'groups#given')"
                )
            return [int(number) for number in self.given[:tasks]]
        if len(self.means) < tasks:
            raise UserError(
                "an earlier task was learnt without part 'hierarchical', and nothing is known of it: give the groups "
                "(key 'groups#given')"
            )
        if tasks == 1:
            return [0]
        vectors = normalize(torch.stack(self.means[:tasks]).double(), dim=1)
        found = fcluster(linkage(vectors.numpy(), "average"), self.count, "maxclust").tolist()
        order = list(dict.fromkeys(found))
        return [order.index(number) for number in found]

    def state_dict(self) -> dict[str, list[Tensor]]:
        """Return what was measured, for a checkpoint that is loaded with ``weights_only``."""
        return {"means": self.means}

    def load_state_dict(self, state: Mapping[str, list[Tensor]]) -> None:
        """Take over what :meth:`state_dict` returned."""
        self.means = list(state["means"])
