"""Each loss equals a plain loop over images and heads."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from scripts.learning.losses import (
    auxiliary_cross_entropy,
    expandable_der_loss,
    new_classes_cross_entropy,
    newest_cross_entropy,
    others_cross_entropy,
    others_targets,
    seen_cross_entropy,
    softened_cross_entropy,
)
from scripts.model.networks import Outputs

CLASSES = (2, 3, 1)


def make_outputs(batch: int, seed: int = 0, classes: Sequence[int] = CLASSES) -> Outputs:
    generator = torch.Generator().manual_seed(seed)

    def logits(width: int) -> Tensor:
        return (3 * torch.randn(batch, width, generator=generator)).requires_grad_()

    return Outputs(
        logits=logits(sum(classes)),
        features=logits(4),
        maps=[],
        classes=tuple(classes),
        auxiliary=logits(classes[-1] + 1),
        extras={"task_logits": logits(sum(classes) + len(classes))},
    )


def surprise(logits: Tensor, target: int) -> float:
    values = logits.tolist()
    return math.log(sum(math.exp(value) for value in values)) - values[target]


def target_of(label: int, first: int, count: int) -> int:
    return label - first if first <= label < first + count else count


def mean_surprise(logits: Tensor, labels: Tensor, first: int, count: int) -> float:
    found = [surprise(row, target_of(label, first, count)) for row, label in zip(logits, labels.tolist(), strict=True)]
    return sum(found) / len(found)


@pytest.mark.parametrize("seed", range(3))
def test_each_loss_equals_a_plain_loop(seed: int) -> None:
    outputs = make_outputs(24, seed)
    labels = torch.randint(0, 6, (24,), generator=torch.Generator().manual_seed(seed))
    assert set(labels.tolist()) == set(range(6))
    assert outputs.auxiliary is not None
    seen = mean_surprise(outputs.logits, labels, 0, 6)
    newest = mean_surprise(outputs.auxiliary, labels, 5, 1)
    heads = [
        mean_surprise(outputs.task_logits[task], labels, sum(CLASSES[:task]), count)
        for task, count in enumerate(CLASSES)
    ]
    assert seen_cross_entropy(outputs, labels).item() == pytest.approx(seen, rel=1e-5)
    assert expandable_der_loss(outputs, labels).item() == pytest.approx(seen + newest, rel=1e-5)
    softened = mean_surprise(outputs.logits / 5, labels, 0, 6)
    assert softened_cross_entropy(outputs, labels, 5.0).item() == pytest.approx(softened, rel=1e-5)
    assert auxiliary_cross_entropy(outputs, labels).item() == pytest.approx(newest, rel=1e-5)
    assert others_cross_entropy(outputs, labels).item() == pytest.approx(sum(heads), rel=1e-5)


def test_the_loss_of_the_newest_classes_is_that_of_their_logits_alone() -> None:
    outputs = make_outputs(6, classes=(2, 3))
    labels = torch.tensor([2, 3, 4, 4, 3, 2])
    expected = mean_surprise(outputs.logits[:, 2:], labels, 2, 3)
    loss = newest_cross_entropy(outputs, labels)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert outputs.logits.grad is not None and not outputs.logits.grad[:, :2].any()


@pytest.mark.parametrize("present", [[0], [1], [2], [0, 2]])
def test_a_head_without_an_image_of_its_own_is_skipped(present: list[int]) -> None:
    outputs = make_outputs(8)
    labels = torch.tensor([(sum(CLASSES[:task])) for task in present] * (8 // len(present)))
    loss = others_cross_entropy(outputs, labels)
    loss.backward()
    expected = sum(
        mean_surprise(outputs.task_logits[task], labels, sum(CLASSES[:task]), CLASSES[task]) for task in present
    )
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    gradient = outputs.extras["task_logits"].grad
    assert gradient is not None, "each process of a distributed run needs one, of every head"
    heads = gradient.split([size + 1 for size in CLASSES], 1)
    assert [task for task in range(3) if bool(heads[task].any())] == present


@pytest.mark.parametrize("loss", [seen_cross_entropy, auxiliary_cross_entropy, others_cross_entropy])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_gradients_are_finite_and_not_all_zero(loss: object, scale: float) -> None:
    outputs = make_outputs(6)
    leaves = [outputs.logits, outputs.auxiliary, outputs.extras["task_logits"]]
    scaled = Outputs(
        outputs.logits * scale,
        outputs.features,
        [],
        CLASSES,
        outputs.auxiliary * scale,  # type: ignore[operator]
        {"task_logits": outputs.extras["task_logits"] * scale},
    )
    loss(scaled, torch.arange(6)).backward()  # type: ignore[operator]
    gradients = [leaf.grad for leaf in leaves if leaf is not None and leaf.grad is not None]
    assert gradients
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)
    assert any(bool(gradient.any()) for gradient in gradients)


def test_labels_of_other_tasks_become_others() -> None:
    assert others_targets(torch.arange(7), first=2, count=3).tolist() == [3, 3, 0, 1, 2, 3, 3]
    assert others_targets(torch.arange(3), first=0, count=3).tolist() == [0, 1, 2]


def test_among_the_new_classes_alone_neither_old_logits_nor_others_count() -> None:
    outputs, labels = make_outputs(6, classes=(2, 3, 2)), torch.tensor([5, 6, 6, 5, 5, 6])
    loss = new_classes_cross_entropy(outputs, labels)
    assert outputs.auxiliary is not None
    own = outputs.auxiliary[:, :2]
    expected = sum(surprise(row, int(label) - 5) for row, label in zip(own, labels, strict=True)) / 6
    assert loss.item() == pytest.approx(expected)
    loss.backward()
    assert outputs.auxiliary.grad is not None and outputs.auxiliary.grad[:, 2].eq(0).all()
    assert outputs.logits.grad is None
