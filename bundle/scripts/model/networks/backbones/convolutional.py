"""torchvision's convolutional networks as chains of blocks, with the sites before which an adapter can stand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

from monai.networks.layers import Pool
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights
from torchvision.models.convnext import LayerNorm2d

from scripts.model.networks.backbones.backbone import Backbone, Block, Chain, Layout
from scripts.model.networks.backbones.signed import drop_last_activation
from scripts.model.networks.backbones.weights import download_torchvision, torchvision_licence

RESNET_SITES = ("layer1", "layer2", "layer3", "layer4")
SITES: dict[str, tuple[str, ...]] = {
    # source: DynaMMo (arXiv 2404.14099); an adapter stands before the named block
    "resnet18": RESNET_SITES,
    "resnet34": RESNET_SITES,
    "resnet50": RESNET_SITES,
    "mobilenet_v2": ("features.3", "features.5", "features.12", "features.15"),
    "efficientnet_b0": ("features.4", "features.5", "features.6", "features.8"),
    # ours, after the same pattern: one a resolution
    "mobilenet_v3_small": ("features.2", "features.4", "features.9", "features.12"),
    "efficientnet_v2_s": ("features.3", "features.4", "features.6", "features.7"),
    "densenet121": ("features.denseblock1", "features.denseblock2", "features.denseblock3", "features.denseblock4"),
    "convnext_tiny": ("features.1", "features.3", "features.5", "features.7"),
    "swin_t": ("features.1", "features.3", "features.5", "features.7"),
}
NO_BLOCKS = ("avgpool", "fc", "classifier", "head", "permute", "flatten")


class TorchvisionBackbone(Backbone):
    """A network of torchvision's whose images may have any size."""

    layout: ClassVar[Layout] = Layout.CHANNELS_FIRST
    rectified: ClassVar[bool] = True
    """Whether the last block ends with an activation."""

    def chain(self, image_size: int, signed: bool = False) -> Chain:
        model = get_model(self.name, weights=None)
        blocks = list(named_blocks(model))
        if signed and self.rectified:
            drop_last_activation(blocks[-1].module)
        return Chain(blocks, self.pool(model, signed), SITES[self.name], depths(blocks), self.layout)

    def pool(self, model: nn.Module, signed: bool) -> Block:
        """Return the mean over the map."""
        return Block("pool", mean_pool(2), "")

    def normalisation(self) -> tuple[list[float], list[float]]:
        preset = get_model_weights(self.name).DEFAULT.transforms()
        return list(preset.mean), list(preset.std)

    def download(self, weights: str) -> dict[str, Tensor]:
        return download_torchvision(self.name, weights)

    def licence(self, weights: str) -> str | None:
        return torchvision_licence(self.name, weights)


class DenseNet(TorchvisionBackbone):
    """The last map passes a ReLU before it is pooled."""

    rectified = False

    def pool(self, model: nn.Module, signed: bool) -> Block:
        return Block("pool", mean_pool(2) if signed else nn.Sequential(nn.ReLU(), *mean_pool(2)), "")


class ConvNext(TorchvisionBackbone):
    """The mean is normalised; the layer that does so is the first of torchvision's classifier."""

    rectified = False

    def pool(self, model: nn.Module, signed: bool) -> Block:
        return Block("pool", NormalisedMean(model.get_submodule("classifier.0")), "")


class NormalisedMean(nn.Module):
    """Mean over the map, and ConvNeXt's last normalisation.

    Args:
        norm: torchvision's ``LayerNorm2d``.
    """

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        assert isinstance(norm, LayerNorm2d)
        self.mean = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(norm)  # its name in a file of weights

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, c, H, W] to [B, c]."""
        return self.classifier(self.mean(x)).flatten(1)


class Swin(TorchvisionBackbone):
    """Shifted windows: its maps are [B, H, W, c]."""

    layout = Layout.CHANNELS_LAST
    rectified = False

    def pool(self, model: nn.Module, signed: bool) -> Block:
        return Block("pool", MeanOfChannelsLast(), "")


class MeanOfChannelsLast(nn.Module):
    """Mean over the map."""

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, H, W, c] to [B, c]."""
        return x.mean((1, 2))


def mean_pool(dimensions: int) -> nn.Sequential:
    """Return the mean over a map of 2 or 3 axes."""
    return nn.Sequential(Pool[Pool.ADAPTIVEAVG, dimensions](1), nn.Flatten())


def depths(blocks: Sequence[Block]) -> list[str]:
    """Return the blocks after the stem: of ``features`` all but the first, of a ResNet its layers."""
    names = [block.name for block in blocks]
    return [name for name in names[1:] if name.startswith(("features.", "layer"))]


def named_blocks(model: nn.Module) -> Iterator[Block]:
    """Yield the blocks of a classifier in the order of its forward pass, without pooling and classifier."""
    for name, module in model.named_children():
        if name == "features":
            for index, child in module.named_children():
                yield Block(f"features.{index}", child, f"features.{index}.")
        elif name not in NO_BLOCKS:
            yield Block(name, module, f"{name}.")
