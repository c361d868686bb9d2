"""Backbones by name, a file a family: chains of named blocks with the sites at which adapters stand."""

from collections.abc import Mapping, Sequence
from typing import Any

from scripts.imaging.image_spec import ImageSpec
from scripts.model.networks.backbones.backbone import (
    Backbone,
    Block,
    Chain,
    Layout,
    PatchedBackbone,
    Segment,
    black_image,
    cut,
    module_name,
)
from scripts.model.networks.backbones.convolutional import SITES, ConvNext, DenseNet, Swin, TorchvisionBackbone
from scripts.model.networks.backbones.small import CbamResNet18, ResNet32
from scripts.model.networks.backbones.timm_models import PREFIX as TIMM
from scripts.model.networks.backbones.timm_models import TimmBackbone, WholeModel
from scripts.model.networks.backbones.transformers import (
    PATCHES,
    TorchvisionTransformer,
    TransformerBlock,
    VolumeTransformer,
)
from scripts.model.networks.backbones.volumes import DEPTHS, VolumeResNet
from scripts.model.networks.backbones.weights import is_file_name, load_into
from scripts.model.networks.registry import Registry

OWN_KIND: dict[str, type[TorchvisionBackbone]] = {"densenet121": DenseNet, "convnext_tiny": ConvNext, "swin_t": Swin}

BACKBONES: Registry[Backbone] = Registry("backbone", "backbone")
for _name in SITES:
    BACKBONES[_name] = OWN_KIND.get(_name, TorchvisionBackbone)(_name)
for _name in PATCHES:
    BACKBONES[_name] = TorchvisionTransformer(_name)
for _name in DEPTHS:
    BACKBONES[_name] = VolumeResNet(_name)
BACKBONES["resnet32"] = ResNet32("resnet32")
BACKBONES["resnet18_cbam"] = CbamResNet18("resnet18_cbam")
BACKBONES["vit_3d"] = VolumeTransformer("vit_3d")


def find_backbone(name: str) -> Backbone:
    """Return a backbone.

    Args:
        name: a key of :data:`BACKBONES`, or ``timm:`` and one of timm's.

    Raises:
        UserError: for an unknown name; the message lists what there is.
    """
    return TimmBackbone(name) if name.startswith(TIMM) else BACKBONES.find(name)


def image_spec(
    backbone: str,
    size: int,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    colour: Mapping[str, Any] | None = None,
    presentation: Mapping[str, Any] | None = None,
) -> ImageSpec:
    """Return how a network with this backbone sees an image.

    Args:
        backbone: as of :func:`find_backbone`.
        size: see :class:`scripts.imaging.image_spec.ImageSpec`, as of all others.
        mean: ``None``: what the backbone's weights were trained with.
        std: as the mean.
        colour: of a network of images.
        presentation: of DICOM and NIfTI files.

    Raises:
        UserError: for an unknown backbone, or a mean or deviation of another number of channels.
    """
    kind = find_backbone(backbone)
    own_mean, own_std = kind.normalisation()
    return ImageSpec(size, mean or own_mean, std or own_std, colour, presentation, kind.dimensions)


def weights_licence(backbone: str, weights: str | None) -> str:
    """Return under which licence pretrained weights were published, in words.

    Args:
        backbone: as of :func:`find_backbone`.
        weights: a file or a name; ``None``: an untrained backbone.

    Raises:
        UserError: for an unknown backbone.
    """
    if weights is None:
        return "no pretrained weights"
    if is_file_name(weights):
        return "a file's: its publisher says it"
    return find_backbone(backbone).licence(weights) or "not said by its publisher's library"


__all__ = [
    "BACKBONES",
    "TIMM",
    "Backbone",
    "Block",
    "Chain",
    "Layout",
    "PatchedBackbone",
    "Segment",
    "TransformerBlock",
    "WholeModel",
    "black_image",
    "cut",
    "find_backbone",
    "image_spec",
    "load_into",
    "module_name",
    "weights_licence",
]
