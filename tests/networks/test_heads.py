"""A unified head keeps its old rows; `others` heads decide as published."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from scripts.errors import UserError
from scripts.networks import (
    ConcatenatedHead,
    CosineHead,
    NearestMeanHead,
    OthersHead,
    ProxyHead,
    UnifiedHead,
    find_head,
)

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
    found = head.others_probability(features)
    logits = head.task_logits(features)
    assert [value.shape for value in logits] == [(20, 3), (20, 4)]
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


def rows(head: UnifiedHead) -> Tensor:
    return torch.cat([head.linear.weight, head.linear.bias[:, None]], 1).detach().clone()


def test_growing_a_unified_head_keeps_the_old_rows() -> None:
    torch.manual_seed(0)
    head = UnifiedHead(WIDTH)
    assert head(torch.randn(2, 1, WIDTH)).shape == (2, 0)
    head.grow(2)
    before = rows(head)
    head.grow(3)
    after = rows(head)
    assert torch.equal(after[:2], before)
    assert after.shape == (5, WIDTH + 1)
    assert bool(after[2:].any(1).all())
    assert head.linear.weight.requires_grad


def test_a_unified_head_takes_the_known_rows_of_the_auxiliary_head() -> None:
    torch.manual_seed(0)
    head, auxiliary = UnifiedHead(WIDTH, [2, 3]), torch.nn.Linear(WIDTH, 4)
    before = rows(head)
    head.start_from(auxiliary, 3)
    assert torch.equal(rows(head)[:2], before[:2])
    assert torch.equal(rows(head)[2:], torch.cat([auxiliary.weight, auxiliary.bias[:, None]], 1)[:3])


def test_a_concatenated_head_grows_a_branch_a_task_and_keeps_what_old_classes_read_in_old_branches() -> None:
    torch.manual_seed(0)
    head = ConcatenatedHead(WIDTH)
    head.grow(2)
    assert head(torch.randn(4, 1, WIDTH)).shape == (4, 2)
    for branches, classes in ((2, 3), (3, 1)):
        old, features = head.linear, torch.randn(4, branches, WIDTH)
        head.grow(classes)
        logits = head(features)
        assert logits.shape == (4, old.out_features + classes)
        assert head.linear.weight.all(), "what is added is freshly started, not zero"
        added = features[:, -1] @ head.linear.weight[: old.out_features, -WIDTH:].T
        kept = features[:, :-1].flatten(1) @ old.weight.T + old.bias
        torch.testing.assert_close(logits[:, : old.out_features], kept + added)
    assert ConcatenatedHead(WIDTH, (2, 3, 1)).linear.weight.shape == head.linear.weight.shape == (6, 3 * WIDTH)


def test_an_unknown_head_is_refused_with_the_choice() -> None:
    with pytest.raises(UserError, match="unknown head 'cosinus': choose one of unified, levels, others"):
        find_head("cosinus")


def test_a_nearest_mean_head_learns_linearly_and_keeps_rows_and_means_when_it_grows() -> None:
    torch.manual_seed(0)
    head, features = NearestMeanHead(WIDTH, (2, 1)), torch.randn(5, 1, WIDTH)
    assert torch.equal(head(features), head.linear(features[:, 0]))
    with torch.no_grad():
        head.means.copy_(torch.nn.functional.normalize(torch.randn(3, WIDTH)))
    weight, means = head.linear.weight.clone(), head.means.clone()
    head.grow(2)
    assert torch.equal(head.linear.weight[:3], weight)
    assert torch.equal(head.means[:3], means)
    assert not head.means[3:].any()
    at_the_means = head.eval()(3 * means[:, None])  # the length of a feature does not count
    assert torch.allclose(at_the_means[:, :3].diagonal(), torch.zeros(3), atol=1e-5)
    assert at_the_means.argmax(1).tolist() == [0, 1, 2]


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


@pytest.mark.parametrize(("kind", "proxies"), [(CosineHead, 1), (ProxyHead, 10)])
def test_cosines_are_averaged_over_a_classs_rows_by_their_softmax(kind: type[CosineHead], proxies: int) -> None:
    torch.manual_seed(0)
    head, features = kind(WIDTH, (2, 1)), torch.randn(4, 1, WIDTH)
    with torch.no_grad():
        head.scale.factor.fill_(3)
    found, logits = head.cosines(features), head(features)
    assert found.shape == (4, 3)
    rows = torch.cat([layer.weight for layer in head.rows]).tolist()
    for image in range(4):
        for label in range(3):
            own = [cosine(features[image, 0].tolist(), row) for row in rows[label * proxies : (label + 1) * proxies]]
            expected = sum(weight * value for weight, value in zip(softmax(own), own, strict=True))
            assert found[image, label].item() == pytest.approx(expected, abs=1e-5)
    assert torch.equal(logits, 3 * found)
    assert torch.allclose(head(5 * features), logits, atol=1e-6), "the length of a feature does not count"


@pytest.mark.parametrize(("kind", "proxies"), [(CosineHead, 1), (ProxyHead, 10)])
def test_a_head_of_cosines_grows_by_a_layer_and_starts_from_the_auxiliary_head(
    kind: type[CosineHead], proxies: int
) -> None:
    torch.manual_seed(0)
    head, auxiliary = kind(WIDTH), torch.nn.Linear(WIDTH, 4)
    assert head(torch.randn(2, 1, WIDTH)).shape == (2, 0)
    assert head.newest() == [head.scale]
    head.grow(2)
    before = head.rows[0].weight.detach().clone()
    head.grow(3)
    head.start_from(auxiliary, 3)
    assert torch.equal(head.rows[0].weight, before)
    assert head.rows[1].weight.shape == (3 * proxies, WIDTH)
    features = torch.randn(2, 1, WIDTH)
    expected = [[cosine(row, known) for known in auxiliary.weight[:3].tolist()] for row in features[:, 0].tolist()]
    assert torch.allclose(head.cosines(features)[:, 2:], torch.tensor(expected), atol=1e-5)
    assert head.newest() == [head.scale, head.rows[1]]
