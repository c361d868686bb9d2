"""A backbone a task: each sees the image and nothing of the others."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from scripts.model.networks import AdaptedBackbone, ExpandableBackbone, WholeBackbones, make_backbone
from scripts.model.networks.backbones import black_image


@pytest.mark.parametrize("name", ["mobilenet_v2", "swin_t", "timm:test_vit", "timm:test_resnet", "resnet10_3d"])
def test_every_backbone_can_be_expanded_by_a_copy_of_itself(name: str) -> None:
    torch.manual_seed(0)
    backbone = make_backbone(name, WholeBackbones(), image_size=32)
    assert isinstance(backbone, ExpandableBackbone)
    backbone.add_branch("task1")
    image = black_image(backbone, 17 if backbone.spatial_dims == 3 else 32) + 1
    with torch.no_grad():
        first, second = backbone.eval()(image).unbind(1)
        assert first.shape == (1, backbone.width)
        assert torch.equal(first, second)
        for parameter in backbone.backbones["task1"].parameters():
            parameter.mul_(2)
        changed = backbone(image)
    assert torch.equal(changed[:, 0], first)
    assert not torch.equal(changed[:, 1], first)


def test_each_backbone_sees_the_image_and_nothing_of_the_others(tiny: SimpleNamespace, images: Tensor) -> None:
    backbone = make_backbone("mobilenet_v2", WholeBackbones(), branches=["backbone", "task1", "task2"]).eval()
    tiny.randomise(backbone)
    with torch.no_grad():
        features = backbone(images)
        assert features.shape == (5, 3, 1280)
        for number, branch in enumerate(backbone.branches):
            alone = AdaptedBackbone("mobilenet_v2")
            alone.load_state_dict(backbone.backbones[branch].state_dict())
            assert torch.equal(alone(images)[:, 0], features[:, number])
    assert not torch.equal(features[:, 0], features[:, 1])


def test_afresh_each_backbone_starts_as_the_first_one_did() -> None:
    backbone = make_backbone("mobilenet_v2", WholeBackbones(afresh=True))
    assert isinstance(backbone, ExpandableBackbone)
    before = {key: value.clone() for key, value in backbone.backbones["backbone"].state_dict().items()}
    with torch.no_grad():
        for parameter in backbone.backbones["backbone"].parameters():
            parameter.mul_(2)
    backbone.add_branch("task1")
    started = backbone.backbones["task1"].state_dict()
    assert all(torch.equal(before[key], started[key]) for key in before)
    assert not any("start" in key for key in backbone.state_dict())
