"""Heads are fitted as said, and a mistake ends the command before anything runs."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from scripts.commands.merging import BOUND_RIDGE, Learnt, main, plan_starts, ridge_bound, unified_head
from scripts.engines import fractional_milestones


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
    classify = ridge_bound(SimpleNamespace())(content)  # type: ignore[arg-type]
    counts = [4, 5, 6]
    gram, right = torch.zeros(6, 6, dtype=torch.double), torch.zeros(6, 3, dtype=torch.double)
    for feature, label in zip(content.features.double(), content.labels.tolist(), strict=True):
        x = torch.cat([feature, torch.ones(1, dtype=torch.double)])
        gram += torch.outer(x, x) / counts[label]
        right[:, label] += x / counts[label]
    weight = torch.inverse(gram + BOUND_RIDGE * gram.diagonal().mean() * torch.eye(6, dtype=torch.double)) @ right
    x = torch.cat([content.features.double(), torch.ones(15, 1, dtype=torch.double)], 1)
    torch.testing.assert_close(classify(content.features), x @ weight)


def test_the_first_tasks_head_is_as_tuned_and_later_ones_learn() -> None:
    values: dict[str, Any] = {
        "finetune_epochs": 30,
        "batch_size": 4,
        "finetune_optimizer": partial(torch.optim.Adam, lr=0.1),
        "finetune_scheduler": partial(fractional_milestones, fractions=[0.5]),
    }
    network = SimpleNamespace(backbone=SimpleNamespace(width=5))
    head = unified_head(SimpleNamespace(get=values.get, seed=1, network=network))  # type: ignore[arg-type]
    first, second = learnt((2,)), learnt((2, 2))
    expected = first.features @ first.auxiliary["weight"][:2].T
    torch.testing.assert_close(head(first)(first.features), expected)
    found = head(second)(second.features).argmax(1)
    assert float((found == second.labels).float().mean()) > 0.6


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--starts", "last"], "unknown start 'last': choose some of previous, first, running_mean"),
        (["--strategies", "median"], "unknown merging strategy 'median'"),
        (["--batchnorms", "none"], "unknown 'none': choose one of average, pooled, recalibrated"),
        (["--adapter_start", "first"], "--adapter_start cannot be set for the table of merging"),
        (["--seed", "3"], "--seed cannot be set"),
        (["--memory_sise", "3"], "did you mean --memory_size?"),
    ],
)
def test_a_mistake_ends_with_one_line_before_anything_runs(
    arguments: list[str], part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--data", "generated", "--output", str(tmp_path / "out"), *arguments]) == 1
    printed = capsys.readouterr()
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert part in printed.err
    assert list(tmp_path.iterdir()) == []


def test_each_start_and_seed_is_a_run_in_a_folder_of_its_own(tmp_path: Path) -> None:
    runs = plan_starts("generated", ["previous", "first"], [1, 2], [], tmp_path)
    folders = {start: [str(run.folder.relative_to(tmp_path)) for run in own] for start, own in runs.items()}
    assert folders == {
        start: [f"{start}/generated-dynammo-s{seed}" for seed in (1, 2)] for start in ("previous", "first")
    }
    assert all(run.keys[:2] == ["--adapter_start", start] for start, own in runs.items() for run in own)
