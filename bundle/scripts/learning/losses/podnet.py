"""Losses that keep what the network before this task saw where; labels are class numbers over all tasks, [B]."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot, relu

from scripts.learning.losses.ucir import less_forget_constraint
from scripts.model.networks.outputs import Outputs


def nca_loss(outputs: Outputs, labels: Tensor, margin: float) -> Tensor:
    """Keep the own class's logit a margin above the logarithm of the other classes' summed exponentials, or more.

    Source: Douillard et al., PODNet (ECCV 2020), section 3.2, with the margin taken off the scaled similarity. Taken
    off before it is scaled, the margin rewards a small scale: with a few classes it soon learns to be negative.

    Args:
        outputs: of a network with a head of cosines.
        labels: class numbers, [B].
        margin: taken off the own class's logit.
    """
    logits = outputs.logits
    own = logits.gather(1, labels.unsqueeze(1)).squeeze(1) - margin
    # the smallest number, not minus infinity, whose gradient is none where there is a single class
    others = logits.masked_fill(one_hot(labels, logits.shape[1]).bool(), torch.finfo(logits.dtype).min)
    return relu(others.logsumexp(1) - own).mean()


def pooled_distillation(maps: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Mean distance between the pooled maps of two networks.

    The squares of a map are summed along one axis at a time; what is left of all axes together has length 1.
    Source: Douillard et al., PODNet (ECCV 2020), section 3.1 (POD-spatial), as published.

    Args:
        maps: [B, c, H, W] or [B, c, D, H, W] each.
        teacher: the maps of the network before, of the same shapes.
    """
    distances = [(_pooled(own) - _pooled(old)).norm(dim=1).mean() for own, old in zip(maps, teacher, strict=True)]
    return torch.stack(distances).mean()


def _pooled(features: Tensor) -> Tensor:
    squares = features.square()
    return normalize(torch.cat([squares.sum(axis).flatten(1) for axis in range(2, squares.dim())], 1), dim=1)


def podnet_loss(outputs: Outputs, labels: Tensor, margin: float, spatial: float, flat: float) -> Tensor:
    """Neighbourhood components + distillation of maps and features; in the first task the former alone.

    Source: Douillard et al., PODNet (ECCV 2020), section 3.

    Args:
        outputs: of a network with a head of cosines.
        labels: class numbers, [B].
        margin: see :func:`nca_loss`.
        spatial: weight of the maps' distillation, times the square root of all / new classes.
        flat: weight of the features' distillation, times the same.
    """
    loss = nca_loss(outputs, labels, margin)
    if outputs.teacher is None:
        return loss
    kept = spatial * pooled_distillation(outputs.maps, outputs.teacher.maps) + flat * less_forget_constraint(outputs)
    return loss + math.sqrt(sum(outputs.classes) / outputs.classes[-1]) * kept
