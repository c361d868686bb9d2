"""Losses that keep what the network said of the old classes before this task; labels are class numbers, [B]."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cross_entropy

from scripts.learning.losses.cross_entropy import seen_cross_entropy
from scripts.model.networks.outputs import Outputs


def knowledge_distillation(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Cross-entropy between the softened probabilities of two networks; not multiplied by the temperature squared.

    Source: Hinton et al., Distilling the knowledge in a neural network (2015); as used by BiC, equation 2.

    Args:
        logits: of the network that learns, [B, C], of which the first K columns are compared.
        teacher: of the network before, [B, K].
        temperature: divides both; above 1 it softens them.
    """
    old = teacher.shape[1]
    return cross_entropy(logits[:, :old] / temperature, (teacher / temperature).softmax(1))


def icarl_loss(outputs: Outputs, labels: Tensor, temperature: float) -> Tensor:
    """Cross-entropy over the classes seen plus distillation, 1:1; in the first task there is no teacher.

    Source: Rebuffi et al., iCaRL (CVPR 2017), with softmax in place of sigmoid outputs.
    """
    loss = seen_cross_entropy(outputs, labels)
    if outputs.teacher is None:
        return loss
    return loss + knowledge_distillation(outputs.logits, outputs.teacher.logits, temperature)


def lwf_loss(outputs: Outputs, labels: Tensor, temperature: float) -> Tensor:
    """Cross-entropy over the newest task's classes alone plus distillation, 1:1; for methods without a memory.

    Source: Li and Hoiem, Learning without forgetting (LwF, ECCV 2016), figure 3, with lambda_o = 1.
    """
    first = sum(outputs.classes[:-1])
    loss = cross_entropy(outputs.logits[:, first:], labels - first)
    if outputs.teacher is None:
        return loss
    return loss + knowledge_distillation(outputs.logits, outputs.teacher.logits, temperature)


def bic_loss(outputs: Outputs, labels: Tensor, temperature: float) -> Tensor:
    """Weigh distillation by the share of old classes l, and cross-entropy by 1 - l.

    Source: Wu et al., BiC (CVPR 2019), equation 3; Zhao et al., WA (CVPR 2020), section 3.
    """
    loss = seen_cross_entropy(outputs, labels)
    if outputs.teacher is None:
        return loss
    old = 1 - outputs.classes[-1] / sum(outputs.classes)
    distillation = knowledge_distillation(outputs.logits, outputs.teacher.logits, temperature)
    return (1 - old) * loss + old * distillation
