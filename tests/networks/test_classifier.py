"""The network that leaves the project: rebuilt from its description, equal in TorchScript."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from scripts.errors import UserError
from scripts.networks import (
    SITES,
    Classifier,
    ExpandableBackbone,
    class_names,
    classifier_from,
    make_backbone,
    read_description,
)
from scripts.networks.backbones import black_image

TASKS = [{"name": "first", "classes": ["a", "b"]}, {"name": "second", "classes": ["c", "d", "e"]}]
KINDS: dict[str, dict[str, Any]] = {
    "unified": {"head": "unified", "adapter": "conv", "branches": ["merged"]},
    "others": {"head": "others", "adapter": "conv", "branches": ["merged"]},
    "acl": {"head": "others", "adapter": "conv", "branches": ["task0", "task1"]},
    "plain": {"head": "unified", "adapter": None, "branches": ["backbone"]},
    "levels": {"head": "levels", "adapter": "conv", "branches": ["merged"]},
    "cosine": {"head": "cosine", "adapter": None, "branches": ["backbone"]},
    "proxies": {"head": "proxies", "adapter": None, "branches": ["backbone"]},
    "nearest_mean": {"head": "nearest_mean", "adapter": None, "branches": ["backbone"]},
    "expandable": {"head": "concatenated", "adapter": "backbone", "branches": ["backbone", "task1"]},
}
DESCRIPTION = {
    "backbone": "mobilenet_v2",
    "sites": None,
    "tasks": TASKS,
    "image_size": 64,
    "mean": [0.0],
    "std": [1.0],
    "method": "acl",
    **KINDS["acl"],
}


@pytest.fixture(params=KINDS)
def classifier(request: pytest.FixtureRequest, tiny: SimpleNamespace) -> Classifier:
    torch.manual_seed(0)
    network = Classifier("mobilenet_v2", tasks=TASKS, sites=tiny.sites, **KINDS[request.param]).eval()
    tiny.randomise(network)
    return network


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
def test_torchscript_equals_eager_after_saving(classifier: Classifier, images: Tensor) -> None:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(classifier), buffer)
    buffer.seek(0)
    scripted = torch.jit.load(buffer)
    with torch.no_grad():
        expected = classifier(images)
        assert expected.shape == (5, 5)
        assert len(expected.unique()) > 5
        for _ in range(2):  # the second call runs the optimised graph
            torch.testing.assert_close(scripted(images), expected, rtol=1e-5, atol=1e-6)


def test_images_do_not_see_each_other(classifier: Classifier, images: Tensor) -> None:
    with torch.no_grad():
        together = classifier(images)
        apart = torch.cat([classifier(image[None]) for image in images])
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SITES)
def test_every_backbone_can_be_expanded_by_a_copy_of_itself(name: str) -> None:
    torch.manual_seed(0)
    backbone = ExpandableBackbone(name)
    backbone.add_branch("task1")
    image = black_image(backbone, 17) + 1
    with torch.no_grad():
        first, second = backbone.eval()(image).unbind(1)
        assert first.shape == (1, backbone.width)
        assert torch.equal(first, second)
        next(backbone.backbones["task1"].parameters()).mul_(2)
        changed = backbone(image)
    assert torch.equal(changed[:, 0], first)
    assert not torch.equal(changed[:, 1], first)


def test_each_backbone_sees_the_image_and_nothing_of_the_others(tiny: SimpleNamespace, images: Tensor) -> None:
    backbone = make_backbone("mobilenet_v2", None, "backbone", ["backbone", "task1", "task2"]).eval()
    tiny.randomise(backbone)
    with torch.no_grad():
        features = backbone(images)
        assert features.shape == (5, 3, 1280)
        for number, branch in enumerate(backbone.branches):
            alone = make_backbone("mobilenet_v2", None, None).eval()
            alone.load_state_dict(backbone.backbones[branch].state_dict())
            assert torch.equal(alone(images)[:, 0], features[:, number])
    assert not torch.equal(features[:, 0], features[:, 1])


def test_a_description_rebuilds_the_network() -> None:
    network = classifier_from(json.loads(json.dumps(DESCRIPTION)))
    assert network.backbone.branches == ["task0", "task1"]
    assert [head.out_features for head in network.head.heads] == [3, 4]
    assert class_names(DESCRIPTION) == ["a", "b", "c", "d", "e"]


def test_a_description_is_read_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "network.json"
    path.write_text(json.dumps(DESCRIPTION))
    assert read_description(str(path)) == DESCRIPTION


@pytest.mark.parametrize("key", ["backbone", "branches", "tasks", "image_size", "mean", "std"])
def test_a_description_without_a_key_is_refused_by_name(key: str, tmp_path: Path) -> None:
    path = tmp_path / "network.json"
    path.write_text(json.dumps({name: value for name, value in DESCRIPTION.items() if name != key}))
    with pytest.raises(UserError, match=f"network.json lacks '{key}'"):
        read_description(str(path))


def test_a_missing_or_broken_description_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"no trained model in {tmp_path}"):
        read_description(str(tmp_path / "network.json"))
    (tmp_path / "network.json").write_text('{"backbone": ')
    with pytest.raises(UserError, match="network.json is not valid JSON"):
        read_description(str(tmp_path / "network.json"))
