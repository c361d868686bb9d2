"""A pruned network computes less, keeps its head, and learns from the whole one, which stays as it is."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from scripts.deploy.export.exporter import only_convolutions
from scripts.deploy.export.pruning import MULTIPLE, Pruner, drop_channels
from scripts.model.folder import TrainedModel
from scripts.model.networks import AttendedConvolutions, Classifier, Convolutions, SharedAdapters, WholeBackbones
from scripts.model.networks.adapters import Adapter
from scripts.model.networks.cost import flops_per_image
from scripts.utils.errors import UserError

TASKS = [{"name": "first", "classes": ["a", "b"]}, {"name": "second", "classes": ["c"]}]
MERGED, APART = ("merged",), ("task0", "task1")


def pruner(images: Tensor, **changed: Any) -> Pruner:
    loader = [{"image": part} for part in images.split(8)]
    arguments: dict[str, Any] = {"share": 0.5, "epochs": 2, "rate": 0.001, "loader": loader, "image_size": 40}
    return Pruner(**{**arguments, "device": "cpu", **changed})


def assert_same_state(found: nn.Module, expected: nn.Module) -> None:
    for (name, own), other in zip(found.state_dict().items(), expected.state_dict().values(), strict=True):
        assert torch.equal(own, other), name


@pytest.mark.parametrize(
    ("backbone", "head", "adapter", "branches"),
    [
        ("mobilenet_v2", "unified", Convolutions(), MERGED),
        ("mobilenet_v2", "levels", None, ("backbone",)),
        ("resnet18", "levels", Convolutions(), MERGED),
        ("resnet18", "others", Convolutions(), APART),
        ("mobilenet_v2", "unified", AttendedConvolutions(), MERGED),
        ("mobilenet_v2", "unified", SharedAdapters(Convolutions(), Convolutions(0.25)), MERGED),
        ("mobilenet_v2", "others", Convolutions(), ("merged0", "merged0")),
        ("resnet18", "concatenated", WholeBackbones(), APART),
        ("efficientnet_b0", "fecam", None, ("backbone",)),
    ],
)
def test_networks_of_all_kinds_lose_channels_and_keep_their_heads(
    backbone: str, head: str, adapter: Adapter | None, branches: tuple[str, ...]
) -> None:
    whole = only_convolutions(Classifier(backbone, head, TASKS, adapter and adapter.record(), branches))
    smaller: Any = copy.deepcopy(whole)
    drop_channels(smaller.backbone, 0.5, 96)
    assert smaller(torch.randn(2, 3, 96, 96)).shape == (2, 3)
    assert flops_per_image(smaller, 96) < 0.75 * flops_per_image(whole, 96)
    assert_same_state(smaller.head, whole.head)  # type: ignore[arg-type]
    widths = [
        (new.out_channels, old.out_channels)
        for new, old in zip(smaller.modules(), whole.modules(), strict=True)
        if isinstance(new, nn.Conv2d) and isinstance(old, nn.Conv2d)
    ]
    assert all(new == old or new % MULTIPLE == 0 for new, old in widths)


def test_it_learns_the_features_of_the_whole_network_which_stays_as_it_is(trained_model: Path) -> None:
    torch.manual_seed(0)
    whole: Any = only_convolutions(TrainedModel.open(trained_model).network)
    before, images = copy.deepcopy(whole), torch.randn(32, 3, 40, 40)
    first, last = (pruner(images, epochs=epochs, rate=0.003)(whole) for epochs in (1, 40))
    with torch.no_grad():
        wanted = whole.backbone(images)
        near, far = (float((one.backbone(images) - wanted).square().mean()) for one in (last, first))
    assert near < 0.5 * far
    assert near < 0.7 * float(wanted.var())
    assert not last.training
    assert_same_state(whole, before)
    assert_same_state(last.head, before.head)


@pytest.mark.parametrize(
    ("changed", "part"),
    [
        ({"share": 1}, r"1 of the channels cannot be dropped: .*'pruning'"),
        ({"share": -0.1}, "-0.1 of the channels"),
        ({"share": float("nan")}, "nan of the channels"),
        ({"epochs": 0}, "in 0 epochs: .*'distillation_epochs'"),
    ],
)
def test_what_cannot_be_is_refused(changed: dict[str, Any], part: str) -> None:
    with pytest.raises(UserError, match=part):
        pruner(torch.zeros(1, 3, 40, 40), **changed)
