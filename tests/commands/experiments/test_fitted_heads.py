"""Heads that are fitted on the features of a finished run do what the methods' own do."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch

from scripts.commands.experiments.fitted_heads import Learnt, ridge_bound, ridge_head, unified_head
from scripts.learning.engines import fractional_milestones

RIDGE = {"ridge#shrinkage": 0.3, "ridge#drift_ridge": 1e-12}


def learnt(classes: tuple[int, ...], per_class: int = 4, width: int = 5) -> Learnt:
    generator = torch.Generator().manual_seed(len(classes))
    labels = torch.arange(sum(classes)).repeat_interleave(torch.arange(sum(classes)) + per_class)
    features = torch.randn(len(labels), width, generator=generator) + labels.unsqueeze(1)
    auxiliary = {
        "weight": torch.randn(classes[-1] + 1, width, generator=generator),
        "bias": torch.zeros(classes[-1] + 1),
    }
    return Learnt(classes, features, labels, torch.arange(len(labels)), auxiliary)


def test_the_bound_is_ridge_regression_in_which_every_class_weighs_the_same() -> None:
    content = learnt((2, 1))
    classify = ridge_bound(5, RIDGE.get)(content)
    counts = [4, 5, 6]
    gram, right = torch.zeros(6, 6, dtype=torch.double), torch.zeros(6, 3, dtype=torch.double)
    for feature, label in zip(content.features.double(), content.labels.tolist(), strict=True):
        x = torch.cat([feature, torch.ones(1, dtype=torch.double)])
        gram += torch.outer(x, x) / counts[label]
        right[:, label] += x / counts[label]
    shrunk = gram + RIDGE["ridge#shrinkage"] * gram.diagonal().mean() * torch.eye(6, dtype=torch.double)
    weight = torch.inverse(shrunk) @ right
    x = torch.cat([content.features.double(), torch.ones(15, 1, dtype=torch.double)], 1)
    torch.testing.assert_close(classify(content.features).double(), x @ weight, rtol=1e-5, atol=1e-5)


def test_the_first_tasks_head_is_as_tuned_and_later_ones_learn() -> None:
    values: dict[str, Any] = {
        "finetune_epochs": 30,
        "batch_size": 4,
        "balanced_finetuning#optimizer": partial(torch.optim.Adam, lr=0.1),
        "balanced_finetuning#scheduler": partial(fractional_milestones, fractions=[0.5]),
    }
    head = unified_head(5, values.get)
    first, second = learnt((2,)), learnt((2, 2))
    expected = first.features @ first.auxiliary["weight"][:2].T
    torch.testing.assert_close(head(first)(first.features), expected)
    found = head(second)(second.features).argmax(1)
    assert float((found == second.labels).float().mean()) > 0.6


def test_ridge_that_follows_an_affine_move_is_the_bound_on_the_moved_features() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = learnt((3,)), learnt((3, 2), per_class=30)
    move = torch.eye(5) + 0.3 * torch.randn(5, 5, generator=generator)
    second = replace(second, features=torch.cat([first.features @ move + 1, second.features[len(first.labels) :]]))
    old = torch.randn(40, 5, generator=generator)
    second = replace(second, labels=torch.cat([first.labels, second.labels[len(first.labels) :].clamp(min=3)]))
    head = ridge_head(5, RIDGE.get)
    head(first)
    followed = head(replace(second, moved=(old, old @ move + 1)))
    torch.testing.assert_close(
        followed(second.features), ridge_bound(5, RIDGE.get)(second)(second.features), rtol=1e-4, atol=1e-4
    )
