"""The loss of X-DER: what is said of old, present and future classes is held apart."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize, softmax

from scripts.learning.losses.dark_experience import divide, stored_logits_error
from scripts.model.networks.outputs import Outputs


def xder_loss(
    outputs: Outputs,
    labels: Tensor,
    alpha: float,
    beta: float,
    eta: float,
    margin: float,
    consistency: float,
    temperature: float,
) -> Tensor:
    """Cross-entropy of the present task alone, replay of logits and labels, and constraints on the other classes.

    Source: Boschini et al., Class-incremental continual learning into the eXtended DER-verse (TPAMI 2022), with future
    classes prepared by a contrastive loss.

    Args:
        outputs: of the batch, of a first draw, whose logits are compared, and of a second, whose labels are;
            ``extras`` has ``future`` [N, F], and ``views`` [M, V, F] with their ``view_labels`` [M].
        labels: of batch and draws, [N].
        alpha: of the logits.
        beta: of the labels.
        eta: of the constraints.
        margin: by which the best class of an image's own task is to lead.
        consistency: of the contrastive loss on future logits.
        temperature: of that loss.
    """
    seen = sum(outputs.classes)
    first = seen - outputs.classes[-1]
    said = torch.cat([outputs.logits, outputs.extras["future"]], 1)
    present, *drawn = divide(said, outputs.stored)
    targets, *known = divide(labels, outputs.stored)
    loss = cross_entropy(present[:, first:seen], targets - first)
    if drawn:
        loss = loss + alpha * stored_logits_error(drawn[0], outputs.stored[0])
        loss = loss + beta * cross_entropy(drawn[1][:, :first], known[1])
    if first:
        loss = loss + eta * past_constraint(present[:, :seen], first, margin)
    loss = loss + eta * future_constraint(outputs.logits, outputs.extras["future"], labels, outputs.classes, margin)
    views = outputs.extras["views"]
    return loss + consistency * supervised_contrast(views, outputs.extras["view_labels"], temperature)


def past_constraint(logits: Tensor, first: int, margin: float) -> Tensor:
    """Let the best present class lead the best past one, which gets no gradient, by a margin in probability.

    Args:
        logits: of present images over all classes seen, [B, C].
        first: number of past classes, at least 1.
        margin: in probability.
    """
    probabilities = softmax(logits, 1)
    behind = probabilities[:, :first].amax(1).detach() + margin - probabilities[:, first:].amax(1)
    return mean_above_zero(behind)


def future_constraint(
    logits: Tensor, future: Tensor, labels: Tensor, classes: tuple[int, ...], margin: float
) -> Tensor:
    """Let the best class of each image's own task lead the best future one by a margin in logits.

    Args:
        logits: over all classes seen, [N, C].
        future: over classes to come, [N, F].
        labels: of present and drawn images, [N].
        classes: number of classes of each task.
        margin: in logits.
    """
    best = torch.stack([part.amax(1) for part in logits.split(classes, 1)], 1)
    ends = torch.tensor(classes, device=labels.device).cumsum(0)
    own = best.gather(1, torch.bucketize(labels, ends, right=True).unsqueeze(1)).squeeze(1)
    return mean_above_zero(future.amax(1) + margin - own)


def mean_above_zero(values: Tensor) -> Tensor:
    """Return the mean of the positive values; 0 where there is none."""
    positive = values > 0
    return (values * positive).sum() / positive.sum().clamp(min=1)


def supervised_contrast(views: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Draw views of one class together, and apart from those of others; the mean over the images of their views' sum.

    Source: Khosla et al., Supervised contrastive learning (NeurIPS 2020), equation 2.

    Args:
        views: of each image, [M, V, F], normalised here.
        labels: of the images, [M].
        temperature: divides the cosines.
    """
    rows = normalize(views, dim=2).flatten(0, 1)
    classes = labels.repeat_interleave(views.shape[1])
    itself = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    scores = (rows @ rows.T / temperature).masked_fill(itself, -float("inf"))
    logarithms = scores.log_softmax(1).masked_fill(itself, 0)
    same = (classes.unsqueeze(0) == classes.unsqueeze(1)) & ~itself
    return -((logarithms * same).sum(1) / same.sum(1)).sum() / len(views)
