"""The merged network costs one pass for any number of tasks; ACL pays one a task."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn
from torchvision.models import get_model

from scripts.model.networks import Classifier, ContinualNet, Convolutions, WholeBackbones
from scripts.model.networks.adapters import Adapter
from scripts.model.networks.cost import flops_per_image, parameter_count

CONVOLUTIONS = Convolutions()
ACL = {1: 5.2, 4: 20.2, 7: 35.2, 10: 50.1}


def classifier(tasks: int, branches: list[str], head: str, adapter: Adapter | None = CONVOLUTIONS) -> nn.Module:
    names = [{"name": f"t{task}", "classes": ["a", "b"]} for task in range(tasks)]
    with torch.device("meta"):  # shapes are enough to count
        return Classifier("resnet18", head, names, adapter and adapter.record(), branches)


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
    branches = ["backbone", *(f"task{task}" for task in range(1, tasks))]
    expanded = classifier(tasks, branches, "concatenated", WholeBackbones())
    head, plain_head = (512 * tasks) * (2 * tasks), 512 * 2
    assert expanded.head.linear.in_features == 512 * tasks
    assert flops_per_image(expanded, 224) - 2 * head == tasks * (flops_per_image(plain, 224) - 2 * plain_head)
    backbones = parameter_count(expanded) - head - 2 * tasks
    assert backbones == tasks * (parameter_count(plain) - plain_head - 2)


def test_the_plain_backbone_is_the_published_one() -> None:
    assert flops_per_image(classifier(1, ["backbone"], "unified", None), 224) / 1e9 == pytest.approx(3.63, abs=0.01)


# source: torchvision's pages of the models, in G multiply-adds, with a thousand classes
PUBLISHED = {"vit_b_32": 4.41, "swin_t": 4.49}


@pytest.mark.parametrize("name", PUBLISHED)
def test_attention_counts_as_published(name: str) -> None:
    with torch.device("meta"):
        network = Classifier(name, "unified", [{"name": "all", "classes": [str(number) for number in range(1000)]}])
    assert flops_per_image(network, 224) / 2e9 == pytest.approx(PUBLISHED[name], rel=0.01)


@pytest.mark.parametrize("head", ["unified", "levels"])
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "swin_t", "vit_b_32", "timm:test_vit"])
def test_the_network_without_adapters_has_exactly_the_flops_of_the_librarys(name: str, head: str) -> None:
    with torch.device("meta"):
        network = Classifier(name, head, [{"name": "all", "classes": ["a", "b", "c"]}])
        if name.startswith("timm:"):
            model = timm.create_model(name.removeprefix("timm:"), num_classes=3, img_size=224)
        else:
            model = get_model(name, num_classes=3)
    wider = 2 * 3 * (network.backbone.head_width - network.backbone.last_width)  # where the head reads levels
    assert flops_per_image(network, 224) == flops_per_image(model, 224) + wider


def test_levels_cost_next_to_nothing() -> None:
    counted = []
    for head in ("unified", "levels"):
        network = ContinualNet("resnet18", head)
        network.grow(8)
        counted.append(flops_per_image(network.merge_and_unload([{"name": "all", "classes": list("abcdefgh")}]), 224))
    assert counted[0] < counted[1] < 1.0001 * counted[0]


def test_flops_are_two_a_multiply_add() -> None:
    assert flops_per_image(nn.Conv2d(3, 8, 3), 10) == 2 * 8 * 8 * (3 * 3 * 3) * 8


def test_parameters_are_counted_once() -> None:
    assert parameter_count(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))) == 3 * 4 + 4 + 2 * 4
