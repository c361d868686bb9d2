"""MONAI's 3-D ResNets as backbones for volumes of one channel, built so that MedicalNet's weights fit."""

from __future__ import annotations

from functools import partial

from monai.networks import nets
from torch import Tensor, nn

from scripts.model.networks.backbones.backbone import Backbone, Block, Chain
from scripts.model.networks.backbones.convolutional import RESNET_SITES, mean_pool, named_blocks
from scripts.model.networks.backbones.shortcut import PaddedShortcut
from scripts.model.networks.backbones.signed import drop_last_activation
from scripts.utils.errors import UserError

DEPTHS = {"resnet10_3d": 10, "resnet18_3d": 18}
"""The layers of each backbone for volumes: ``resnet18_3d`` is ``monai.networks.nets.resnet18``."""

MEAN, STD = [0.5], [0.5]
"""Normalisation of intensities in 0..1 (source: MedMNIST v2, its training code; MedicalNet has no fixed one)."""


def volume_resnet(name: str) -> nn.Module:
    """Make an untrained 3-D ResNet without classifier for volumes [B, 1, D, H, W].

    Its first convolution has stride 1 (MONAI's default), so that volumes of 28^3 need no enlarging.

    Args:
        name: a key of :data:`DEPTHS`.
    """
    depth = DEPTHS[name]
    bias_downsample, shortcut_type = nets.get_medicalnet_pretrained_resnet_args(depth)
    model: nn.Module = getattr(nets, f"resnet{depth}")(
        spatial_dims=3,
        n_input_channels=1,
        feed_forward=False,
        shortcut_type=shortcut_type,
        bias_downsample=bias_downsample,
    )
    for block in model.modules():
        if isinstance(block, nets.ResNetBlock) and isinstance(block.downsample, partial):
            block.downsample = PaddedShortcut(block.conv1.out_channels, block.stride, 3)
    return model


class VolumeResNet(Backbone):
    """A 3-D ResNet."""

    dimensions = 3

    def chain(self, image_size: int, signed: bool = False) -> Chain:
        blocks = list(named_blocks(volume_resnet(self.name)))
        if signed:
            drop_last_activation(blocks[-1].module)
        return Chain(blocks, Block("pool", mean_pool(3), ""), RESNET_SITES, RESNET_SITES)

    def normalisation(self) -> tuple[list[float], list[float]]:
        return list(MEAN), list(STD)

    def download(self, weights: str) -> dict[str, Tensor]:
        raise UserError(
            f"backbone {self.name} has no weights called '{weights}': give the path of a file, such as MedicalNet's "
            f"./resnet_{DEPTHS[self.name]}_23dataset.pth (key 'weights')"
        )
