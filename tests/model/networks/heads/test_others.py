"""A head a task decides as published, and says how far an image belongs to other tasks."""

from __future__ import annotations

import math

import pytest
import torch

from scripts.model.networks.heads import OthersHead

WIDTH = 12


def others_head(classes: tuple[int, ...], seed: int, scale: float = 1.0) -> OthersHead:
    torch.manual_seed(seed)
    head = OthersHead(WIDTH, classes)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(scale * torch.randn_like(parameter))
    return head


def softmax(row: list[float]) -> list[float]:
    total = sum(math.exp(value - max(row)) for value in row)
    return [math.exp(value - max(row)) / total for value in row]


def published_decision(logits_by_task: list[list[float]]) -> int:
    probabilities = [softmax(row) for row in logits_by_task]
    task = min(range(len(probabilities)), key=lambda number: probabilities[number][-1])
    known = probabilities[task][:-1]
    return sum(len(row) - 1 for row in probabilities[:task]) + known.index(max(known))


@pytest.mark.parametrize("classes", [(2,), (2, 3), (3, 1, 2, 4)])
@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("scale", [0.3, 1.0])
def test_the_largest_logit_is_the_published_decision(classes: tuple[int, ...], separate: bool, scale: float) -> None:
    head = others_head(classes, seed=len(classes), scale=scale)
    features = torch.randn(300, len(classes) if separate else 1, WIDTH)
    logits_by_task = [
        (features[:, index if separate else 0] @ linear.weight.T + linear.bias).double()
        for index, linear in enumerate(head.heads)
    ]
    decided = head(features).argmax(1).tolist()
    others = torch.stack([logits.softmax(1)[:, -1] for logits in logits_by_task], 1)
    lowest = others.sort(1).values
    checked = 0
    for row in range(len(features)):
        if len(classes) > 1 and lowest[row, 1] - lowest[row, 0] < 1e-6:
            continue  # two heads are equally sure: either decision is right
        assert decided[row] == published_decision([logits[row].tolist() for logits in logits_by_task])
        checked += 1
    assert checked > 250
    assert len(set(decided)) > sum(classes) // 2


@pytest.mark.parametrize("separate", [False, True])
def test_p_others_is_each_heads_last_softmax(separate: bool) -> None:
    head = others_head((2, 3), seed=0)
    features = torch.randn(20, 2 if separate else 1, WIDTH)
    found = head.extras(features)["others"]
    logits = head.task_logits(features)
    assert [value.shape for value in logits] == [(20, 3), (20, 4)]
    assert torch.equal(head.extras(features)["task_logits"], torch.cat(logits, 1))
    for row in range(20):
        expected = [softmax(value[row].tolist())[-1] for value in logits]
        assert found[row].tolist() == pytest.approx(expected, abs=1e-6)
    decided_task = (head(features).argmax(1) >= 2).long()
    assert torch.equal(found.argmin(1), decided_task)


def test_classes_of_other_tasks_keep_their_probability_where_they_can() -> None:
    head = others_head((2, 3), seed=0)
    features = torch.randn(50, 1, WIDTH)
    scores = head(features)
    own = torch.cat([logits.log_softmax(1)[:, :-1] for logits in head.task_logits(features)], 1)
    assert bool((scores <= own).all())
    assert torch.equal(scores.gather(1, scores.argmax(1, keepdim=True)), own.gather(1, scores.argmax(1, keepdim=True)))
    assert bool((scores == own).float().mean() > 0.5)


def test_a_head_a_task_grows_and_starts_from_the_auxiliary_head() -> None:
    head = others_head((2,), seed=0)
    first = head.heads[0].weight.clone()
    auxiliary = torch.nn.Linear(WIDTH, 4)
    head.grow(3)
    head.start_from(auxiliary, 3)
    assert torch.equal(head.heads[0].weight, first)
    assert torch.equal(head.heads[1].weight, auxiliary.weight)
    assert torch.equal(head.heads[1].bias, auxiliary.bias)
    assert head(torch.randn(1, 1, WIDTH)).shape == (1, 5)
