"""Each loss equals its equation in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from scripts.learning.losses import (
    bic_loss,
    icarl_loss,
    knowledge_distillation,
    lwf_loss,
)
from scripts.model.networks import Outputs

Array = NDArray[np.float64]


def logits(batch: int, width: int, seed: int) -> Tensor:
    return 3 * torch.randn(batch, width, generator=torch.Generator().manual_seed(seed))


def make_outputs(classes: tuple[int, ...], batch: int = 7, taught: bool = True) -> Outputs:
    old = classes[:-1]
    teacher = Outputs(logits(batch, sum(old), 1), logits(batch, 4, 2), [], old)
    own = logits(batch, sum(classes), 3).requires_grad_()
    return Outputs(own, logits(batch, 4, 4), [], classes, teacher=teacher if taught else None)


def softmax(values: Array) -> Array:
    return np.exp(values) / np.exp(values).sum(1, keepdims=True)


def plain_distillation(own: Array, teacher: Array, temperature: float) -> float:
    shares = softmax(own[:, : teacher.shape[1]] / temperature)
    return float(-(softmax(teacher / temperature) * np.log(shares)).sum(1).mean())


def plain_cross_entropy(own: Array, labels: Array) -> float:
    return float(-np.log(softmax(own)[np.arange(len(labels)), labels]).mean())


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("classes", [(2, 2), (2, 3, 1), (1, 1)])
def test_each_loss_equals_its_equation(classes: tuple[int, ...], temperature: float) -> None:
    outputs = make_outputs(classes)
    assert outputs.teacher is not None
    own, said = (value.detach().double().numpy() for value in (outputs.logits, outputs.teacher.logits))
    labels = torch.arange(7) % sum(classes)
    kept, learnt = plain_distillation(own, said, temperature), plain_cross_entropy(own, labels.numpy())
    share = sum(classes[:-1]) / sum(classes)
    found = knowledge_distillation(outputs.logits, outputs.teacher.logits, temperature)
    assert found.item() == pytest.approx(kept, rel=1e-5, abs=1e-7)
    assert icarl_loss(outputs, labels, temperature).item() == pytest.approx(learnt + kept, rel=1e-5)
    newest = labels % classes[-1] + sum(classes[:-1])
    within = plain_cross_entropy(own[:, sum(classes[:-1]) :], (labels % classes[-1]).numpy())
    assert lwf_loss(outputs, newest, temperature).item() == pytest.approx(within + kept, rel=1e-5)
    expected = (1 - share) * learnt + share * kept
    assert bic_loss(outputs, labels, temperature).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss", [icarl_loss, lwf_loss, bic_loss])
def test_without_a_teacher_it_is_the_cross_entropy(loss: object) -> None:
    outputs, labels = make_outputs((4,), taught=False), torch.arange(7) % 4
    expected = plain_cross_entropy(outputs.logits.detach().double().numpy(), labels.numpy())
    assert loss(outputs, labels, 2.0).item() == pytest.approx(expected, rel=1e-5)  # type: ignore[operator]


def test_distillation_pulls_towards_the_teacher_and_leaves_new_classes_alone() -> None:
    outputs = make_outputs((3, 2))
    assert outputs.teacher is not None
    knowledge_distillation(outputs.logits, outputs.teacher.logits, 2.0).backward()
    gradient = outputs.logits.grad
    assert gradient is not None
    assert not gradient[:, 3:].any()
    same = outputs.teacher.logits.clone().requires_grad_()
    knowledge_distillation(same, outputs.teacher.logits, 2.0).backward()
    assert same.grad is not None
    assert same.grad.abs().max() < 1e-7 < gradient.abs().max()
