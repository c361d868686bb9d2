"""What ignite's metrics read of an evaluation."""

from __future__ import annotations

from typing import Any

import torch
from ignite.metrics import Accuracy
from torch import Tensor
from torch.nn.functional import pad


def scores_and_labels(output: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Return the scores of a batch and its labels, as `ignite.metrics.Accuracy` takes them.

    Args:
        output: ``pred``, logits ``[N, C]`` or what holds them as ``logits``; ``label``, ``[N]``, or of several findings
            ``[N, C]``.

    Returns:
        ``[N, C + 1]``, where the last class is never chosen: of one class alone ignite would ask for 0 and 1; ``[N]``.
        Of findings each that is known, by the score that ridge regression gives: half of 1.
    """
    logits = getattr(output["pred"], "logits", output["pred"])
    if output["label"].dim() == 2:
        known = output["label"] >= 0
        return torch.stack([1 - logits[known], logits[known]], 1), output["label"][known]
    return pad(logits, (0, 1), value=float("-inf")), output["label"]


def key_accuracy() -> Accuracy:
    """Return the metric of an evaluator whose network gives logits or what holds them."""
    return Accuracy(output_transform=scores_and_labels)
