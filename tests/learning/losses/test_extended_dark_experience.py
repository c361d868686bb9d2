"""The parts of X-DER's loss against their equations, written out."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from scripts.learning.losses import xder_loss
from scripts.learning.losses.extended_dark_experience import (
    future_constraint,
    mean_above_zero,
    past_constraint,
    supervised_contrast,
)

NONE = {"alpha": 0.0, "beta": 0.0, "eta": 0.0, "margin": 0.3, "consistency": 0.0, "temperature": 5.0}


def outputs(present: int = 4, drawn: int = 3) -> Any:
    """Two tasks of two classes and three to come; the stored logits are older than the second task."""
    torch.manual_seed(0)
    images = present + 2 * drawn
    return SimpleNamespace(
        logits=torch.randn(images, 4),
        classes=(2, 2),
        stored=[torch.randn(drawn, 5), torch.randn(drawn, 5)],
        extras={
            "future": torch.randn(images, 3),
            "views": torch.randn(2, 2, 3),
            "view_labels": torch.tensor([0, 2]),
        },
    )


LABELS = torch.tensor([2, 3, 3, 2, 0, 1, 0, 1, 1, 0])


def test_present_images_are_told_apart_among_the_classes_of_their_task() -> None:
    said = outputs()
    expected = cross_entropy(said.logits[:4, 2:], LABELS[:4] - 2)
    torch.testing.assert_close(xder_loss(said, LABELS, **NONE), expected)


def test_logits_of_the_first_draw_and_labels_of_the_second_are_replayed() -> None:
    said = outputs()
    plain = xder_loss(said, LABELS, **NONE)
    every = torch.cat([said.logits, said.extras["future"]], 1)
    held = xder_loss(said, LABELS, **{**NONE, "alpha": 2.0}) - plain
    torch.testing.assert_close(held, 2 * (every[4:7, :5] - said.stored[0]).square().mean())
    told = xder_loss(said, LABELS, **{**NONE, "beta": 3.0}) - plain
    torch.testing.assert_close(told, 3 * cross_entropy(said.logits[7:, :2], LABELS[7:]))


def test_constraints_are_hinges() -> None:
    assert float(mean_above_zero(torch.tensor([-1.0, 0.5, 1.5]))) == 1
    assert float(mean_above_zero(torch.tensor([-1.0]))) == 0
    logits = torch.tensor([[math.log(3), 0.0, math.log(4), 0.0]])  # probabilities 3, 1, 4 and 1 ninths
    assert float(past_constraint(logits, 2, 0.3)) == pytest.approx(3 / 9 + 0.3 - 4 / 9)
    future, labels = torch.tensor([[5.0, 0.0]]), torch.tensor([1])
    assert float(future_constraint(torch.tensor([[1.0, 2.0, 9.0]]), future, labels, (2, 1), 0.3)) == pytest.approx(3.3)


def test_views_of_a_class_are_drawn_together() -> None:
    torch.manual_seed(1)
    views, labels = torch.randn(3, 2, 4), [0, 1, 0]
    rows = [normalize(view, dim=0) for image in views for view in image]
    classes = [label for label in labels for _ in range(2)]
    total = 0.0
    for index, row in enumerate(rows):
        others = [place for place in range(6) if place != index]
        norm = sum(math.exp(float(row @ rows[place]) / 5) for place in others)
        same = [place for place in others if classes[place] == classes[index]]
        total -= sum(float(row @ rows[place]) / 5 - math.log(norm) for place in same) / len(same)
    assert float(supervised_contrast(views, torch.tensor(labels), 5.0)) == pytest.approx(total / 3, rel=1e-5)
