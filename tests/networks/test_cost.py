"""The merged network costs one pass for any number of tasks; ACL pays one a task."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from scripts.networks import Classifier
from scripts.networks.cost import flops_per_image, parameter_count

ACL = {1: 5.2, 4: 20.2, 7: 35.2, 10: 50.1}


def classifier(tasks: int, branches: list[str], head: str, adapter: str | None = "conv") -> nn.Module:
    names = [{"name": f"t{task}", "classes": ["a", "b"]} for task in range(tasks)]
    with torch.device("meta"):  # shapes are enough to count
        return Classifier("resnet18", head, names, adapter, branches)


@pytest.mark.parametrize("head", ["unified", "others"])
def test_the_merged_network_costs_the_same_for_any_number_of_tasks(head: str) -> None:
    counts = [flops_per_image(classifier(tasks, ["merged"], head), 224) for tasks in (1, 4, 7, 10)]
    for tasks, count in zip((1, 4, 7, 10), counts, strict=True):
        outputs = tasks * (2 if head == "unified" else 3)
        assert count - 2 * 512 * outputs == counts[0] - 2 * 512 * (2 if head == "unified" else 3)
        assert count / 1e9 == pytest.approx(5.2255, abs=1e-4)


def test_acl_pays_a_pass_a_task() -> None:
    for tasks, expected in ACL.items():
        count = flops_per_image(classifier(tasks, [f"task{task}" for task in range(tasks)], "others"), 224)
        assert count / 1e9 == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("tasks", [1, 4, 7])
def test_a_backbone_a_task_costs_the_plain_network_times_the_tasks(tasks: int) -> None:
    plain = classifier(1, ["backbone"], "unified", None)
    expanded = classifier(tasks, ["backbone", *(f"task{task}" for task in range(1, tasks))], "concatenated", "backbone")
    head, plain_head = (512 * tasks) * (2 * tasks), 512 * 2
    assert expanded.head.linear.in_features == 512 * tasks
    assert flops_per_image(expanded, 224) - 2 * head == tasks * (flops_per_image(plain, 224) - 2 * plain_head)
    backbones = parameter_count(expanded) - head - 2 * tasks
    assert backbones == tasks * (parameter_count(plain) - plain_head - 2)


def test_the_plain_backbone_is_the_published_one() -> None:
    assert flops_per_image(classifier(1, ["backbone"], "unified", None), 224) / 1e9 == pytest.approx(3.63, abs=0.01)


def test_flops_are_two_a_multiply_add() -> None:
    assert flops_per_image(nn.Conv2d(3, 8, 3), 10) == 2 * 8 * 8 * (3 * 3 * 3) * 8


def test_parameters_are_counted_once() -> None:
    assert parameter_count(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))) == 3 * 4 + 4 + 2 * 4
