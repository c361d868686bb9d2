"""Losses of a batch that images drawn from the memory have joined; labels are class numbers, [B]."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss

from scripts.learning.losses.cross_entropy import seen_cross_entropy
from scripts.model.networks.outputs import Outputs


def der_loss(outputs: Outputs, labels: Tensor, alpha: float) -> Tensor:
    """CE(current images) + alpha MSE(a draw's logits, those stored with it); cross-entropy alone before any draw.

    Source: Buzzega et al., Dark experience for general continual learning (NeurIPS 2020), DER.
    """
    if not outputs.stored:
        return seen_cross_entropy(outputs, labels)
    current, first = divide(outputs.logits, outputs.stored)
    targets, _ = divide(labels, outputs.stored)
    return cross_entropy(current, targets) + alpha * stored_logits_error(first, outputs.stored[0])


def derpp_loss(outputs: Outputs, labels: Tensor, alpha: float, beta: float) -> Tensor:
    """CE(current images) + alpha MSE(a draw's logits, those stored with it) + beta CE(a second draw).

    Source: Buzzega et al., Dark experience for general continual learning (NeurIPS 2020), DER++.
    """
    if not outputs.stored:
        return seen_cross_entropy(outputs, labels)
    current, first, second = divide(outputs.logits, outputs.stored)
    targets, _, known = divide(labels, outputs.stored)
    error = stored_logits_error(first, outputs.stored[0])
    return cross_entropy(current, targets) + alpha * error + beta * cross_entropy(second, known)


def stored_logits_error(logits: Tensor, stored: Tensor) -> Tensor:
    """Mean squared error over the outputs that existed when the logits were stored.

    As in the authors' code it is the mean over images and outputs, where the paper writes a squared length.

    Args:
        logits: of the network as it is, [N, C].
        stored: of the network as it was, [N, K], K <= C; NaN where a row is older than the output.
    """
    existed = ~stored.isnan()
    return mse_loss(logits[:, : stored.shape[1]][existed], stored[existed])


def divide(values: Tensor, draws: list[Tensor]) -> tuple[Tensor, ...]:
    """Divide what a batch has a row of for each image into that of the current images and that of each draw."""
    sizes = [len(draw) for draw in draws]
    return values.split([len(values) - sum(sizes), *sizes])
