"""A linear head keeps its old rows, and reads what its kind reads."""

from __future__ import annotations

import torch
from torch import Tensor

from scripts.model.networks.heads import (
    ConcatenatedHead,
    LevelsHead,
    NearestMeanHead,
    RandomProjectionHead,
    UnifiedHead,
)

WIDTH = 12


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
    assert torch.equal(head.extras(features)["softmax"], head.linear(features[:, 0]))
    at_the_means = head.eval()(3 * means[:, None])  # the length of a feature does not count
    assert torch.allclose(at_the_means[:, :3].diagonal(), torch.zeros(3), atol=1e-5)
    assert at_the_means.argmax(1).tolist() == [0, 1, 2]


def test_a_mean_is_taken_for_its_class_alone() -> None:
    head, mean = NearestMeanHead(WIDTH, (2, 1)), torch.nn.functional.normalize(torch.randn(WIDTH), dim=0)
    head.take_mean(1, mean)
    assert torch.equal(head.means, torch.stack([torch.zeros(WIDTH), mean, torch.zeros(WIDTH)]))


def test_a_head_of_levels_does_not_read_the_last_map() -> None:
    torch.manual_seed(0)
    head, last = LevelsHead(WIDTH, (2, 1)), 5
    features = torch.randn(4, 1, last + WIDTH)
    others = features.clone()
    others[..., :last] = torch.randn(4, 1, last)
    assert torch.equal(head(features), head(others))
    others[..., last] += 1
    assert not torch.allclose(head(features), head(others))


def test_random_features_are_drawn_once_and_rectified() -> None:
    torch.manual_seed(0)
    head, features = RandomProjectionHead(WIDTH, (2,)), torch.randn(4, WIDTH)
    drawn = head.projection.clone()
    head.grow(1)
    assert torch.equal(head.projection, drawn)
    assert torch.equal(head.embed(features), (features @ drawn).clamp(min=0))
    assert head(features[:, None]).shape == (4, 3)
