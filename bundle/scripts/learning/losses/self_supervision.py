"""Losses of images whose labels are not read: what is compared stands in ``Outputs.auxiliary``."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy, normalize

from scripts.model.networks.outputs import Outputs


def moco_loss(outputs: Outputs, labels: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of telling an image's other view among those of earlier images.

    Source: He et al., Momentum contrast (MoCo, CVPR 2020), equation 1.

    Args:
        outputs: queries [B, D] in ``auxiliary``; ``extras`` has ``keys`` [B, D], the same images' other views, and
            ``queue`` [K, D], both of length 1.
        labels: not read.
        temperature: published 0.07; MoCo v2 0.2.
    """
    assert outputs.auxiliary is not None
    queries, keys = normalize(outputs.auxiliary, dim=1), outputs.extras["keys"]
    own = (queries * keys).sum(1, keepdim=True)
    scores = torch.cat([own, queries @ outputs.extras["queue"].T], 1) / temperature
    return cross_entropy(scores, torch.zeros(len(scores), dtype=torch.long, device=scores.device))


def simsiam_loss(outputs: Outputs, labels: Tensor) -> Tensor:
    """Minus the cosine of each view's prediction and the other's projection, through which no gradient goes.

    Source: Chen and He, Exploring simple Siamese representation learning (SimSiam, CVPR 2021), equations 2 to 4.

    Args:
        outputs: projections and predictions [2 B, 2, D] in ``auxiliary``, all first views before all second ones.
        labels: not read.
    """
    assert outputs.auxiliary is not None
    (first, second), (predicted, predicted_second) = (part.chunk(2) for part in outputs.auxiliary.unbind(1))
    ahead = cosine_similarity(predicted, second.detach()).mean()
    return -(ahead + cosine_similarity(predicted_second, first.detach()).mean()) / 2
