"""Losses on cosines that keep classes a margin apart; labels are class numbers over all tasks, [B]."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn.functional import cosine_similarity, relu

from scripts.learning.losses.cross_entropy import seen_cross_entropy
from scripts.model.networks.outputs import Outputs


def less_forget_constraint(outputs: Outputs) -> Tensor:
    """One minus the cosine between an image's features and those that the network gave it before this task.

    Source: Hou et al., UCIR (CVPR 2019), less-forget constraint; PODNet's flat distillation is the same.
    """
    assert outputs.teacher is not None
    return (1 - cosine_similarity(outputs.features.flatten(1), outputs.teacher.features.flatten(1))).mean()


def margin_ranking(cosines: Tensor, labels: Tensor, old: int, margin: float, hardest: int) -> Tensor:
    """Keep images of old classes closer, by a margin, to their own class than to the new ones most like them.

    Zero where the batch has no image of an old class. Source: Hou et al., UCIR (CVPR 2019), inter-class separation.

    Args:
        cosines: similarity to every class, [B, C].
        labels: class numbers, [B].
        old: number of old classes, which come first.
        margin: by which the own class is to be closer.
        hardest: how many new classes, those with the largest cosines, are kept away; there may be fewer.
    """
    rehearsed = labels < old
    if not rehearsed.any():
        return cosines.new_zeros(())
    own = cosines[rehearsed].gather(1, labels[rehearsed].unsqueeze(1))
    hard = cosines[rehearsed, old:]
    return relu(margin - own + hard.topk(min(hardest, hard.shape[1]), dim=1).values).mean()


def ucir_loss(
    outputs: Outputs, labels: Tensor, less_forget: float, ranking: float, margin: float, hardest: int
) -> Tensor:
    """Cross-entropy + less-forget constraint + margin ranking; in the first task the cross-entropy alone.

    Source: Hou et al., Learning a unified classifier incrementally via rebalancing (UCIR, CVPR 2019), section 3.

    Args:
        outputs: of a network with a head of cosines.
        labels: class numbers, [B].
        less_forget: weight of the feature distillation, times the square root of old / new classes.
        ranking: weight of the margin ranking.
        margin: see :func:`margin_ranking`.
        hardest: see :func:`margin_ranking`.
    """
    loss = seen_cross_entropy(outputs, labels)
    if outputs.teacher is None:
        return loss
    *_, new = outputs.classes
    old = sum(outputs.classes) - new
    kept = less_forget * math.sqrt(old / new) * less_forget_constraint(outputs)
    return loss + kept + ranking * margin_ranking(outputs.extras["cosines"], labels, old, margin, hardest)
