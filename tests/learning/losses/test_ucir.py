"""UCIR's losses equal their equations, computed an image at a time."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from scripts.learning.losses import less_forget_constraint, margin_ranking, seen_cross_entropy, ucir_loss
from scripts.model.networks import Outputs


def make_outputs(classes: tuple[int, ...], labels: Tensor, taught: bool = True) -> Outputs:
    generator = torch.Generator().manual_seed(0)

    def outputs(classes: tuple[int, ...], teacher: Outputs | None = None) -> Outputs:
        cosines = 2 * torch.rand(len(labels), sum(classes), generator=generator) - 1
        features = torch.randn(len(labels), 1, 4, generator=generator)
        return Outputs(3 * cosines, features, [], classes, extras={"cosines": cosines}, teacher=teacher)

    return outputs(classes, outputs(classes[:-1]) if taught else None)


def plain_ranking(cosines: Tensor, labels: list[int], old: int, margin: float, hardest: int) -> float:
    terms = []
    for row, label in zip(cosines.tolist(), labels, strict=True):
        if label < old:
            for new in sorted(row[old:], reverse=True)[:hardest]:
                terms.append(max(0.0, margin - row[label] + new))
    return sum(terms) / len(terms) if terms else 0.0


@pytest.mark.parametrize("hardest", [1, 2])
@pytest.mark.parametrize("classes", [(2, 3), (3, 1), (2, 1, 4)])
def test_old_classes_are_kept_apart_from_the_hardest_new_ones(classes: tuple[int, ...], hardest: int) -> None:
    labels = torch.arange(11) % sum(classes)
    outputs, old = make_outputs(classes, labels), sum(classes[:-1])
    cosines = outputs.extras["cosines"]
    found = margin_ranking(cosines, labels, old, 0.5, hardest).item()
    assert found == pytest.approx(plain_ranking(cosines, labels.tolist(), old, 0.5, hardest), rel=1e-5)
    assert found > 0


def test_a_batch_of_new_classes_alone_has_no_ranking() -> None:
    cosines = torch.rand(3, 4, requires_grad=True)
    assert margin_ranking(cosines, torch.tensor([2, 3, 2]), 2, 0.5, 2).item() == 0


@pytest.mark.parametrize("classes", [(2, 3), (3, 1), (2, 1, 4)])
def test_the_whole_loss_equals_its_equation(classes: tuple[int, ...]) -> None:
    labels = torch.arange(11) % sum(classes)
    outputs, old = make_outputs(classes, labels), sum(classes[:-1])
    assert outputs.teacher is not None
    pairs = zip(outputs.features[:, 0].tolist(), outputs.teacher.features[:, 0].tolist(), strict=True)
    lost = [1 - sum(a * b for a, b in zip(x, y, strict=True)) / math.hypot(*x) / math.hypot(*y) for x, y in pairs]
    forgetting = sum(lost) / len(lost)
    assert less_forget_constraint(outputs).item() == pytest.approx(forgetting, rel=1e-5)
    expected = (
        seen_cross_entropy(outputs, labels).item()
        + 5 * math.sqrt(old / classes[-1]) * forgetting
        + 0.7 * plain_ranking(outputs.extras["cosines"], labels.tolist(), old, 0.5, 2)
    )
    found = ucir_loss(outputs, labels, less_forget=5, ranking=0.7, margin=0.5, hardest=2)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_without_a_teacher_it_is_the_cross_entropy() -> None:
    labels = torch.arange(6) % 3
    outputs = make_outputs((3,), labels, taught=False)
    found = ucir_loss(outputs, labels, less_forget=5, ranking=1, margin=0.5, hardest=2)
    assert torch.equal(found, seen_cross_entropy(outputs, labels))
