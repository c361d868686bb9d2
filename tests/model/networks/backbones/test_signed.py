"""Without its last activation a backbone's features have both signs, and nothing else is another."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import get_model

from scripts.model.networks import AdaptedBackbone, Classifier, find_backbone
from scripts.model.networks.heads import SIGNED

LAST: dict[str, nn.Module] = {
    "resnet18": nn.ReLU(),
    "resnet50": nn.ReLU(),
    "mobilenet_v2": nn.ReLU6(),
    "efficientnet_b0": nn.SiLU(),
    "mobilenet_v3_small": nn.Hardswish(),
    "resnet10_3d": nn.ReLU(),
}


def images_for(name: str) -> Tensor:
    shape = (2, 1, 17, 17, 17) if find_backbone(name).dimensions == 3 else (2, 3, 33, 33)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", LAST)
def test_only_the_last_activation_is_gone(name: str, tiny: SimpleNamespace) -> None:
    usual, signed = AdaptedBackbone(name).eval(), AdaptedBackbone(name, reads=SIGNED).eval()
    tiny.randomise(usual)
    signed.load_state_dict(usual.state_dict())
    with torch.no_grad():
        features, maps = signed.features_and_maps(images_for(name))
        _, expected = usual.features_and_maps(images_for(name))
    assert all(torch.equal(*pair) for pair in zip(maps[:-1], expected[:-1], strict=True))
    assert bool((maps[-1] < 0).any())
    assert bool((features < 0).any())
    assert torch.equal(LAST[name](maps[-1]), expected[-1])


@pytest.mark.parametrize("name", ["densenet121", "swin_t", "convnext_tiny"])
def test_maps_that_end_without_an_activation_stay_as_they_are(name: str, tiny: SimpleNamespace) -> None:
    usual, signed = AdaptedBackbone(name).eval(), AdaptedBackbone(name, reads=SIGNED).eval()
    tiny.randomise(usual)
    signed.load_state_dict(usual.state_dict())
    with torch.no_grad():
        features, maps = signed.features_and_maps(images_for(name))
        expected_features, expected = usual.features_and_maps(images_for(name))
    assert all(torch.equal(*pair) for pair in zip(maps, expected, strict=True))
    assert bool((features < 0).any())
    if name == "densenet121":  # whose ReLU is a part of the pooling
        assert not bool((expected_features < 0).any())
        torch.testing.assert_close(features[:, 0], maps[-1].mean((2, 3)))
    else:
        assert torch.equal(features, expected_features)


def test_the_last_block_of_torchvision_computed_by_hand(tiny: SimpleNamespace) -> None:
    for name, steps in (("resnet18", 2), ("resnet50", 3)):
        model, backbone = get_model(name, weights=None).eval(), AdaptedBackbone(name, reads=SIGNED).eval()
        tiny.randomise(model)
        block = model.layer4[-1]
        backbone.blocks["layer4"].block.layer4[-1].load_state_dict(block.state_dict())
        x = torch.randn(2, block.conv1.in_channels, 3, 3, generator=torch.Generator().manual_seed(1))
        y = x
        with torch.no_grad():
            for step in range(1, steps + 1):
                y = getattr(block, f"bn{step}")(getattr(block, f"conv{step}")(y))
                y = y.relu() if step < steps else y
            found = backbone.blocks["layer4"].block.layer4[-1](x)
        torch.testing.assert_close(found, x + y)


def test_an_untrained_backbone_starts_from_the_same_weights(tiny: SimpleNamespace) -> None:
    networks = [tiny.network(head, adapter=None, seed=3).backbone.state_dict() for head in ("unified", "cosine")]
    assert networks[0].keys() == networks[1].keys()
    assert not tiny.changed_keys(*networks)


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet10_3d"])
def test_it_is_exported(name: str, tiny: SimpleNamespace) -> None:
    network = Classifier(name, "proxies", [{"name": "first", "classes": ["a", "b"]}]).eval()
    tiny.randomise(network)
    images = images_for(name)
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.script(network)(images), network(images), rtol=1e-4, atol=1e-5)
