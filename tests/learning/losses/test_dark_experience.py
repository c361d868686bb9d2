"""Each loss equals the paper's equation, written out in NumPy image by image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from scripts.learning.losses import der_loss, derpp_loss, stored_logits_error
from scripts.model.networks import Outputs

Array = NDArray[np.float64]
CURRENT = 4


def random(batch: int, width: int, seed: int) -> Tensor:
    return 3 * torch.randn(batch, width, generator=torch.Generator().manual_seed(seed))


def make_outputs(sizes: tuple[int, ...], widths: tuple[int, ...], classes: int = 5) -> tuple[Outputs, Tensor]:
    """A batch of 4 images and draws of ``sizes``; the stored rows have, in turn, ``widths`` outputs."""
    stored: list[Tensor] = []
    for seed, size in enumerate(sizes):
        rows = random(size, max(widths), seed)
        for number, row in enumerate(rows):
            row[widths[number % len(widths)] :] = float("nan")
        stored.append(rows)
    batch = CURRENT + sum(sizes)
    logits = random(batch, classes, 9).requires_grad_()
    return Outputs(logits, logits, [], (2, classes - 2), stored=stored), torch.arange(batch) % classes


def plain_cross_entropy(own: Array, labels: Array) -> float:
    return float(np.mean([np.log(np.exp(row).sum()) - row[label] for row, label in zip(own, labels, strict=True)]))


def plain_error(own: Array, stored: Array) -> float:
    pairs = [(a, b) for now, then in zip(own, stored, strict=True) for a, b in zip(now, then, strict=False)]
    return float(np.mean([(a - b) ** 2 for a, b in pairs if not np.isnan(b)]))


@pytest.mark.parametrize("widths", [(5,), (3,), (2, 3, 5)], ids=["same task", "an earlier task", "several tasks"])
def test_each_loss_equals_its_equation(widths: tuple[int, ...]) -> None:
    outputs, labels = make_outputs((3, 3), widths)
    own, known = outputs.logits.detach().double().numpy(), labels.numpy()
    learnt = plain_cross_entropy(own[:4], known[:4])
    error = plain_error(own[4:7], outputs.stored[0].double().numpy())
    again = plain_cross_entropy(own[7:], known[7:])
    found = derpp_loss(outputs, labels, 0.3, 0.7)
    assert found.item() == pytest.approx(learnt + 0.3 * error + 0.7 * again, rel=1e-5)

    outputs, labels = make_outputs((3,), widths)
    own, known = outputs.logits.detach().double().numpy(), labels.numpy()
    expected = plain_cross_entropy(own[:4], known[:4]) + 0.3 * plain_error(own[4:], outputs.stored[0].double().numpy())
    assert der_loss(outputs, labels, 0.3).item() == pytest.approx(expected, rel=1e-5)


def test_before_anything_is_kept_it_is_the_cross_entropy() -> None:
    outputs, labels = make_outputs((), (5,))
    expected = plain_cross_entropy(outputs.logits.detach().double().numpy(), labels.numpy())
    assert der_loss(outputs, labels, 0.3).item() == pytest.approx(expected, rel=1e-5)
    assert derpp_loss(outputs, labels, 0.3, 0.7).item() == pytest.approx(expected, rel=1e-5)


def test_outputs_that_did_not_exist_then_get_no_gradient_from_the_error() -> None:
    outputs, _ = make_outputs((3,), (2, 4, 3))
    stored_logits_error(outputs.logits[CURRENT:], outputs.stored[0]).backward()
    assert outputs.logits.grad is not None
    pulled = outputs.logits.grad[CURRENT:] != 0
    assert pulled.tolist() == [[number < width for number in range(5)] for width in (2, 4, 3)]
