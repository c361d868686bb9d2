"""Every backbone computes what its library computes before the classifier, and takes the library's weights whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from monai.networks import nets
from torch import Tensor, nn
from torchvision.models import get_model

from scripts.model.networks import BACKBONES, AdaptedBackbone, ContinualNet, find_backbone, image_spec
from scripts.model.networks.backbones.convolutional import SITES
from scripts.model.networks.backbones.transformers import PATCHES
from scripts.model.networks.backbones.volumes import DEPTHS
from scripts.utils.errors import UserError

Library = tuple[nn.Module, Callable[[Any, Tensor], Tensor]]
OF_TIMM = ["timm:test_vit", "timm:test_convnext", "timm:test_resnet"]
OF_NO_LIBRARY = ("resnet32", "resnet18_cbam")  # test_small.py
TWINS = ["resnet34", "vit_b_16", "resnet18_3d"]  # larger ones of the same code as their neighbours


def without(classifier: str) -> Callable[[Any, Tensor], Tensor]:
    """Return what passes images through a network up to a layer."""

    def features(model: Any, images: Tensor) -> Tensor:
        parent, _, layer = classifier.rpartition(".")
        setattr(model.get_submodule(parent), layer, nn.Identity())
        return model(images)

    return features


def library(name: str, size: int) -> Library:
    """Return the library's own network, with its classifier, and how its features are had."""
    if name.startswith("timm:"):
        sized = {"img_size": size} if "vit" in name else {}
        model = timm.create_model(name.removeprefix("timm:"), num_classes=7, **sized)
        return model, lambda model, images: model.forward_head(model.forward_features(images), pre_logits=True)
    if name == "vit_3d":
        model = nets.ViT(in_channels=1, img_size=size, patch_size=16, classification=False)
        return model, lambda model, images: model(images)[0].mean(1)
    if name in DEPTHS:
        bias, shortcut = nets.get_medicalnet_pretrained_resnet_args(DEPTHS[name])
        make = getattr(nets, f"resnet{DEPTHS[name]}")
        shape = {"spatial_dims": 3, "n_input_channels": 1, "feed_forward": False}
        return make(**shape, shortcut_type=shortcut, bias_downsample=bias), lambda model, images: model(images)
    sized = {"image_size": size} if name in PATCHES else {}
    model = get_model(name, weights=None, **sized)
    layers = [layer for layer, _ in model.named_children()]
    return model, without("classifier.2" if name == "convnext_tiny" else layers[-1])


def fill(model: nn.Module) -> None:
    """Give every entry values of its own, such that images still tell apart at the end."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name.endswith("relative_position_index"):
                continue  # a table
            if not value.is_floating_point():
                value.fill_(len(name))
            elif value.dim() > 1:
                value.uniform_(-1, 1).mul_((6 / value[0].numel()) ** 0.5)
            elif name.endswith(("running_var", "weight")):
                value.uniform_(0.5, 1.5)
            else:
                value.uniform_(-0.5, 0.5)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in TWINS else ())
        for name in (*BACKBONES, *OF_TIMM)
        if name not in OF_NO_LIBRARY
    ],
)
def test_the_features_are_those_of_the_library(name: str, tmp_path: Path) -> None:
    size = 64 if name in (*PATCHES, "timm:test_vit") else 32
    sides = [33, 49, 35] if name in (*SITES, *DEPTHS) else [size] * 3
    backbone = AdaptedBackbone(name, image_size=size)
    model, features = library(name, size)
    fill(model)
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    backbone.load_pretrained(str(tmp_path / "weights.pth"))
    if backbone.spatial_dims == 2:
        images = torch.randn(2, 3, *sides[:2]).contiguous(memory_format=torch.channels_last)
    else:
        images = torch.randn(2, 1, *sides)
    with torch.no_grad():
        expected, found = features(model.eval(), images), backbone(images)[:, 0]
    assert found.shape == (2, backbone.width)
    assert torch.equal(found, expected)
    assert float((expected[0] - expected[1]).abs().max()) > 0.01 * float(expected.abs().max()), "images tell apart"


def test_an_unknown_backbone_is_refused_with_the_choice() -> None:
    for ask in (find_backbone, AdaptedBackbone, ContinualNet, lambda name: image_spec(name, 32)):
        with pytest.raises(UserError, match="unknown backbone 'vgg16': choose one of resnet18, .*swin_t, .*vit_3d"):
            ask("vgg16")


@pytest.mark.parametrize("name", BACKBONES)
def test_images_look_as_the_weights_were_trained_with(name: str) -> None:
    backbone, image = BACKBONES[name], image_spec(name, 64)
    of_volumes = name.endswith("_3d")
    assert backbone.dimensions == image.dimensions == (3 if of_volumes else 2)
    expected = ([0.5], [0.5]) if of_volumes else ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert backbone.normalisation() == (image.mean, image.std) == expected


@pytest.mark.parametrize("name", [*BACKBONES, *OF_TIMM])
def test_the_sites_are_blocks_of_the_chain_and_after_its_first(name: str) -> None:
    with torch.device("meta"):
        chain = find_backbone(name).chain(64)
    names = [block.name for block in chain.blocks]
    assert len(set(names)) == len(names)
    places = [names.index(site) for site in chain.sites]
    assert places == sorted(places)
    assert places[0] > 0 or names == ["model"]
