"""Cross-entropies on the outputs of the growing network; labels are class numbers over all tasks, [B].

Those in :data:`OF_FINDINGS` also take what is said of several findings, [B, C]: :mod:`scripts.learning.tasks.labels`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from scripts.model.networks.outputs import Outputs


def others_targets(labels: Tensor, first: int, count: int) -> Tensor:
    """Map class numbers to a task's own: 0 .. count - 1 for its classes, ``count`` (others) for every other class."""
    within = labels - first
    return torch.where((within >= 0) & (within < count), within, torch.full_like(within, count))


def seen_cross_entropy(outputs: Outputs, labels: Tensor) -> Tensor:
    """Cross-entropy over all classes seen so far."""
    return cross_entropy(outputs.logits, labels)


def newest_cross_entropy(outputs: Outputs, labels: Tensor) -> Tensor:
    """Cross-entropy of the head among the newest task's classes alone; the rows of old classes are left alone.

    Source: Zhang et al., SLCA (ICCV 2023), as published.
    """
    first = sum(outputs.classes[:-1])
    return cross_entropy(outputs.logits[:, first:], labels - first)


def auxiliary_cross_entropy(outputs: Outputs, labels: Tensor) -> Tensor:
    """Cross-entropy of the auxiliary head: the newest task's classes, and others for every old class.

    Of findings the mean over the newest task's, each a yes or no; others is left alone. Source: ACL and DynaMMo,
    stage 1.
    """
    assert outputs.auxiliary is not None
    count = outputs.classes[-1]
    if labels.dim() == 2:
        return binary_cross_entropy_with_logits(outputs.auxiliary[:, :count], labels[:, -count:].float())
    return cross_entropy(outputs.auxiliary, others_targets(labels, sum(outputs.classes) - count, count))


def new_classes_cross_entropy(outputs: Outputs, labels: Tensor) -> Tensor:
    """Cross-entropy of the auxiliary head among the newest task's classes alone: of no other is there an image.

    Source: L2P, DualPrompt and CODA-Prompt, where the logits of old classes are masked while a task trains.
    """
    assert outputs.auxiliary is not None
    return cross_entropy(outputs.auxiliary[:, :-1], labels - sum(outputs.classes[:-1]))


def own_task_cross_entropy(outputs: Outputs, labels: Tensor) -> Tensor:
    """Cross-entropy of the newest task's own head among its classes, of a head a task."""
    return cross_entropy(outputs.task_logits[-1][:, :-1], labels - sum(outputs.classes[:-1]))


def expandable_der_loss(outputs: Outputs, labels: Tensor) -> Tensor:
    """Cross-entropy over all classes plus that of the auxiliary head, 1:1; in the first task there is none.

    Source: Yan et al., DER (CVPR 2021), section 3.2, training loss.
    """
    loss = seen_cross_entropy(outputs, labels)
    return loss if outputs.auxiliary is None else loss + auxiliary_cross_entropy(outputs, labels)


def softened_cross_entropy(outputs: Outputs, labels: Tensor, temperature: float) -> Tensor:
    """Cross-entropy over all classes seen so far, of logits divided by ``temperature``.

    Source: Yan et al., DER (CVPR 2021), section 3.3, classifier learning.
    """
    return cross_entropy(outputs.logits / temperature, labels)


def others_cross_entropy(outputs: Outputs, labels: Tensor) -> Tensor:
    """Sum over the tasks' heads of their cross-entropy with others as the target of foreign images.

    A head without an image of its own in the batch is skipped. Source: ACL and DynaMMo, stage 2, as published.
    """
    total = outputs.features.new_zeros(())
    first = 0
    for logits, count in zip(outputs.task_logits, outputs.classes, strict=True):
        targets = others_targets(labels, first, count)
        # chosen on the device, which need not be waited for; a skipped head gets a gradient of zero, not none: every
        # process of a distributed run must have one
        total = total + torch.where((targets < count).any(), cross_entropy(logits, targets), 0 * logits.sum())
        first += count
    return total


OF_FINDINGS = frozenset({auxiliary_cross_entropy})
"""Losses that learn several findings an image."""
