"""Losses of self-supervised learning against their equations, written out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn.functional import normalize

from scripts.learning.losses import moco_loss, simsiam_loss

LABELS = torch.zeros(0)


def outputs(auxiliary: torch.Tensor, **extras: torch.Tensor) -> Any:
    return SimpleNamespace(auxiliary=auxiliary, extras=extras)


def test_moco_tells_the_other_view_among_earlier_images() -> None:
    torch.manual_seed(0)
    queries, keys, queue = torch.randn(3, 4), normalize(torch.randn(3, 4)), normalize(torch.randn(5, 4))
    expected = []
    for query, key in zip(normalize(queries), keys, strict=True):
        own = torch.exp(query @ key / 0.07)
        others = sum(torch.exp(query @ other / 0.07) for other in queue)
        expected.append(-torch.log(own / (own + others)))
    found = moco_loss(outputs(queries, keys=keys, queue=queue), LABELS, temperature=0.07)
    assert float(found) == pytest.approx(float(torch.stack(expected).mean()), rel=1e-5)


def test_simsiam_compares_predictions_with_the_other_projections_and_stops_their_gradient() -> None:
    torch.manual_seed(0)
    both = torch.randn(6, 2, 4, requires_grad=True)
    (first, second), (ahead, ahead_second) = (part.chunk(2) for part in both.detach().unbind(1))
    cosines = (normalize(ahead) * normalize(second)).sum(1) + (normalize(ahead_second) * normalize(first)).sum(1)
    loss = simsiam_loss(outputs(both), LABELS)
    assert float(loss) == pytest.approx(float(-cosines.mean() / 2), rel=1e-5)
    loss.backward()  # type: ignore[no-untyped-call]
    assert both.grad is not None
    assert not both.grad[:, 0].any()
    assert both.grad[:, 1].any(1).all()
