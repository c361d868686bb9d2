"""The network that leaves the project: rebuilt from its description, equal in TorchScript."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from scripts.model.networks import Bottleneck, Classifier, Convolutions, WholeBackbones, classifier_from
from scripts.utils.errors import UserError

TASKS = [{"name": "first", "classes": ["a", "b"]}, {"name": "second", "classes": ["c", "d", "e"]}]
KINDS: dict[str, dict[str, Any]] = {
    "unified": {"head": "unified", "adapter": Convolutions().record(), "branches": ["merged"]},
    "others": {"head": "others", "adapter": Convolutions().record(), "branches": ["merged"]},
    "acl": {"head": "others", "adapter": Convolutions().record(), "branches": ["task0", "task1"]},
    "plain": {"head": "unified", "adapter": None, "branches": ["backbone"]},
    "levels": {"head": "levels", "adapter": Convolutions().record(), "branches": ["merged"]},
    "cosine": {"head": "cosine", "adapter": None, "branches": ["backbone"]},
    "proxies": {"head": "proxies", "adapter": None, "branches": ["backbone"]},
    "nearest_mean": {"head": "nearest_mean", "adapter": None, "branches": ["backbone"]},
    "expandable": {"head": "concatenated", "adapter": WholeBackbones().record(), "branches": ["backbone", "task1"]},
}
DESCRIPTION = {
    "backbone": "mobilenet_v2",
    "sites": None,
    "tasks": TASKS,
    "levels": "published",
    "image": {"size": 65},
    "method": "acl",
    **KINDS["acl"],
}


@pytest.fixture(params=KINDS)
def classifier(request: pytest.FixtureRequest, tiny: SimpleNamespace) -> Classifier:
    torch.manual_seed(0)
    network = Classifier(
        "mobilenet_v2", tasks=TASKS, sites=tiny.sites, image_size=tiny.side, **KINDS[request.param]
    ).eval()
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


OTHERS: dict[str, dict[str, Any]] = {
    "timm:test_vit": {"head": "unified", "adapter": Bottleneck(8).record(), "branches": ["merged"]},
    "swin_t": {"head": "levels"},
    "vit_b_32": {"head": "levels", "levels": "every"},
    "densenet121": {"head": "cosine"},
}


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
@pytest.mark.parametrize("backbone", OTHERS)
def test_torchscript_of_other_backbones_equals_eager(backbone: str, tiny: SimpleNamespace) -> None:
    torch.manual_seed(0)
    network = Classifier(backbone, tasks=TASKS, image_size=32, **OTHERS[backbone]).eval()
    tiny.randomise(network)
    scripted, images = torch.jit.script(network), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = network(images)
        assert len(expected.unique()) > 5
        for _ in range(2):  # the second call runs the optimised graph
            torch.testing.assert_close(scripted(images), expected, rtol=1e-5, atol=1e-5)


def test_images_do_not_see_each_other(classifier: Classifier, images: Tensor) -> None:
    with torch.no_grad():
        together = classifier(images)
        apart = torch.cat([classifier(image[None]) for image in images])
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-5)


def test_a_description_rebuilds_the_network() -> None:
    network = classifier_from(json.loads(json.dumps(DESCRIPTION)))
    assert network.backbone.image_size == 65
    assert network.backbone.branches == ["task0", "task1"]
    assert [head.out_features for head in network.head.heads] == [3, 4]


def test_images_too_small_are_refused_when_the_network_is_built() -> None:
    with pytest.raises(UserError, match="image_size 64 is too small for mobilenet_v2"):
        classifier_from({**DESCRIPTION, "image": {"size": 64}})
