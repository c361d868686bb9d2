"""A head a task, each with a class for what belongs to other tasks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from scripts.model.networks.heads.head import HEADS, Head

MARGIN = 1e-4  # how far classes of other tasks stay behind the predicted one, in log-probability


class OthersHead(Head):
    """A linear head a task with one extra output, ``others``, for the classes of all other tasks.

    Where there is a branch a task (ACL), head i reads branch i; where there is one (DynaMMo), every head reads it.
    Source: Zhang et al., ACL (MICCAI 2023); Qazi et al., DynaMMo (MIUA 2024).

    Args:
        width: features of one branch.
        classes: number of classes of each task learnt so far.
    """

    apart = True

    def __init__(self, width: int, classes: Sequence[int] = ()) -> None:
        super().__init__(width, classes)
        self.width = width
        self.margin = MARGIN
        self.heads = nn.ModuleList(nn.Linear(width, count + 1) for count in classes)

    def grow(self, num_classes: int) -> None:
        """Add the head of a new task."""
        self.heads.append(nn.Linear(self.width, num_classes + 1))

    def start_from(self, auxiliary: nn.Linear, num_classes: int) -> None:
        """Take the newest head from an auxiliary head of ``num_classes + 1`` outputs."""
        self.heads[-1].load_state_dict(auxiliary.state_dict())

    def task_logits(self, features: Tensor) -> list[Tensor]:
        """Map features [B, R, d] to a list of logits [B, n_t + 1], one a task."""
        branches = features.shape[1]
        return [head(features[:, index if branches > 1 else 0]) for index, head in enumerate(self.heads)]

    def extras(self, features: Tensor) -> dict[str, Tensor]:
        """Return the logits of all heads side by side, [B, C + T], and P(others) of each, [B, T].

        The predicted task has the smallest P(others); the open-set score is 1 minus it.
        """
        logits = self.task_logits(features)
        others = torch.stack([own.softmax(1)[:, -1] for own in logits], 1)
        return {"task_logits": torch.cat(logits, 1), "others": others}

    def newest(self) -> list[nn.Module]:
        """Return the newest task's head."""
        return [self.heads[-1]]

    def embedding(self, features: Tensor) -> Tensor:
        """Map features [N, R, d] to those of the newest branch, [N, d]."""
        return features[:, -1]

    def forward(self, features: Tensor) -> Tensor:
        """Map features [B, R, d] to log-scores [B, C] whose largest is the published decision.

        The decision takes the task with the smallest P(others) and there the best known class; classes of other tasks
        keep their own log-probability where it does not contradict the decision.
        """
        branches = features.shape[1]
        scores: list[Tensor] = []
        others: list[Tensor] = []
        tasks: list[Tensor] = []
        for index, head in enumerate(self.heads):
            logarithms = head(features[:, index if branches > 1 else 0]).log_softmax(1)
            scores.append(logarithms[:, :-1])
            others.append(logarithms[:, -1])
            tasks.append(torch.full([logarithms.shape[1] - 1], index, device=features.device))
        score = torch.cat(scores, 1)
        chosen = torch.stack(others, 1).argmin(1, keepdim=True)
        inside = torch.cat(tasks).unsqueeze(0) == chosen
        best = score.masked_fill(~inside, -float("inf")).amax(1, keepdim=True)
        return torch.where(inside, score, torch.minimum(score, best - self.margin))


HEADS["others"] = OthersHead
