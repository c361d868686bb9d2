"""What the growing network returns, for losses and evaluation to take whole."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor


@dataclass
class Outputs:
    """One forward pass.

    Args:
        logits: score of every class seen so far, [B, C].
        features: features of every branch, [B, R, d].
        maps: maps of the newest branch after each segment of the backbone, [B, c, H, W] or [B, c, D, H, W] each.
        classes: number of classes of each task.
        auxiliary: logits of the auxiliary head, [B, n_t + 1], while there is one; of a projection what is compared.
        extras: what the head says beside the logits, by name; see :meth:`scripts.model.networks.heads.Head.extras`.
        penalties: what the network itself asks to be small, by name, a number each, added to the loss.
        teacher: what the network as it was before this task says of the same images, over the old classes;
            filled in by :class:`scripts.learning.handlers.TeacherHandler`.
        stored: logits kept with the images drawn from the memory, [n, K] a draw, NaN for classes that came after an
            image; the draws are the batch's last rows; filled in by
            :class:`scripts.learning.handlers.DarkExperienceHandler`.
    """

    logits: Tensor
    features: Tensor
    maps: list[Tensor]
    classes: tuple[int, ...]
    auxiliary: Tensor | None = None
    extras: dict[str, Tensor] = field(default_factory=dict)
    penalties: dict[str, Tensor] = field(default_factory=dict)
    teacher: Outputs | None = None
    stored: list[Tensor] = field(default_factory=list)

    def in_single_precision(self) -> Outputs:
        """Return the same in float32, whatever the network computed in."""
        own: dict[str, Any] = {name: value.float() for name, value in vars(self).items() if isinstance(value, Tensor)}
        own["maps"] = [value.float() for value in self.maps]
        for name in ("extras", "penalties"):
            own[name] = {key: value.float() for key, value in getattr(self, name).items()}
        return replace(self, **own)

    @property
    def task_logits(self) -> list[Tensor]:
        """Logits a task, [B, n_t + 1] each, of a head a task; of others none."""
        side_by_side = self.extras.get("task_logits")
        return [] if side_by_side is None else list(side_by_side.split([count + 1 for count in self.classes], 1))

    def classes_within_tasks(self, labels: Tensor) -> Tensor:
        """Return the best class of each image's own task: the decision where the task is given (task-incremental).

        Args:
            labels: class numbers over all tasks seen, [B].

        Returns:
            Class numbers over all tasks, [B].
        """
        # a head a task has scores of its own; those of the joint decision are cut off in the tasks not chosen
        scores = [logits[:, :-1] for logits in self.task_logits] or list(self.logits.split(self.classes, 1))
        ends = torch.tensor(self.classes, device=labels.device).cumsum(0)
        firsts = ends - torch.tensor(self.classes, device=labels.device)
        best = torch.stack([part.argmax(1) for part in scores], 1) + firsts
        return best.gather(1, torch.bucketize(labels, ends, right=True).unsqueeze(1)).squeeze(1)
