"""Residual networks of the continual learning literature that torchvision lacks; no weights are published here."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models import resnet18
from torchvision.models.resnet import BasicBlock

from scripts.model.networks.backbones.backbone import Backbone, Block, Chain
from scripts.model.networks.backbones.cbam import BlockAttention
from scripts.model.networks.backbones.convolutional import RESNET_SITES, mean_pool, named_blocks
from scripts.model.networks.backbones.shortcut import PaddedShortcut
from scripts.model.networks.backbones.signed import drop_last_activation
from scripts.utils.errors import UserError

WIDTHS = (16, 32, 64)
BLOCKS = 5  # a width: 6 n + 2 layers
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
"""ImageNet's, since no weights ask for others."""


class UnpublishedBackbone(Backbone):
    """A chain of residual layers whose weights nobody publishes."""

    def build(self) -> nn.Module:
        """Return the network, with its layers as ``layer1`` and so on."""
        raise NotImplementedError

    def chain(self, image_size: int, signed: bool = False) -> Chain:
        blocks = list(named_blocks(self.build()))
        if signed:
            drop_last_activation(blocks[-1].module)
        layers = [block.name for block in blocks if block.name in RESNET_SITES]
        return Chain(blocks, Block("pool", mean_pool(2), ""), layers, layers)

    def normalisation(self) -> tuple[list[float], list[float]]:
        return list(MEAN), list(STD)

    def download(self, weights: str) -> dict[str, Tensor]:
        raise UserError(
            f"nobody publishes weights '{weights}' of {self.name}: give a file (dynammo pretrain DATA writes one), or "
            "leave the key 'weights' out"
        )


class ResNet32(UnpublishedBackbone):
    """ResNet-32 for small images, with shortcuts without parameters.

    Source: He et al., Deep residual learning (CVPR 2016), section 4.2; as iCaRL and those after it have it.
    """

    def build(self) -> nn.Module:
        model = nn.Sequential()
        model.add_module("conv1", nn.Conv2d(3, WIDTHS[0], 3, padding=1, bias=False))
        model.add_module("bn1", nn.BatchNorm2d(WIDTHS[0]))
        model.add_module("relu", nn.ReLU(inplace=True))
        inputs = WIDTHS[0]
        for number, width in enumerate(WIDTHS, start=1):
            stride = 1 if number == 1 else 2
            shortcut = None if stride == 1 else PaddedShortcut(width, stride, 2)
            first = BasicBlock(inputs, width, stride, shortcut)
            model.add_module(
                f"layer{number}", nn.Sequential(first, *(BasicBlock(width, width) for _ in range(1, BLOCKS)))
            )
            inputs = width
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        return model


class CbamResNet18(UnpublishedBackbone):
    """ResNet-18 with attention over channels and places in each block, before the shortcut is added.

    Source: Woo et al., CBAM: Convolutional block attention module (ECCV 2018), sections 3 and 4.1.
    """

    def build(self) -> nn.Module:
        model = resnet18()
        for block in model.modules():
            if isinstance(block, BasicBlock):
                block.bn2 = nn.Sequential(block.bn2, BlockAttention(block.conv2.out_channels))
        return model
