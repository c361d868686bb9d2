"""The sites and adapters of torchvision's convolutional networks are the published ones."""

from __future__ import annotations

import pytest

from scripts.model.networks import AdaptedBackbone, Convolutions
from scripts.model.networks.backbones.convolutional import SITES

# METHODS: name, channels before each site, parameters of one task's adapters
TABLE = [
    ("resnet18", [64, 64, 128, 256], 1_625_092),
    ("resnet34", [64, 64, 128, 256], 1_625_092),
    ("mobilenet_v2", [24, 32, 96, 160], 657_364),
    ("efficientnet_b0", [40, 80, 112, 320], 2_216_308),
]


@pytest.mark.parametrize(("name", "channels", "parameters"), TABLE, ids=[row[0] for row in TABLE])
def test_sites_and_adapters_are_the_published_ones(name: str, channels: list[int], parameters: int) -> None:
    backbone = AdaptedBackbone(name, Convolutions(), branches=["task0"])
    assert backbone.sites == SITES[name]
    adapters = [block.adapters["task0"] for block in backbone.blocks.values()]
    counts = [sum(parameter.numel() for parameter in adapter.parameters()) for adapter in adapters]
    assert counts == [18 * c**2 + 6 * c + 1 for c in channels]
    assert sum(counts) == parameters
