"""Residual networks that torchvision lacks: their size as published, and attention in each block of one."""

from __future__ import annotations

import pytest
import torch

from scripts.model.networks import find_backbone, make_backbone
from scripts.model.networks.backbones.cbam import BlockAttention
from scripts.utils.errors import UserError


def test_resnet32_has_the_published_size() -> None:
    """He et al. (2016), table 6: 0.46 million parameters, with a classifier of ten classes."""
    backbone = make_backbone("resnet32", None, image_size=32)
    assert backbone.width == 64
    assert sum(weight.numel() for weight in backbone.parameters()) + 650 == 464154
    assert backbone(torch.rand(2, 3, 32, 32)).shape == (2, 1, 64)


def test_attention_is_in_each_block_and_features_may_have_signs() -> None:
    backbone = make_backbone("resnet18_cbam", None, image_size=64)
    assert sum(isinstance(module, BlockAttention) for module in backbone.modules()) == 8
    signed = make_backbone("resnet18_cbam", None, image_size=64, reads="signed")
    images = torch.randn(2, 3, 64, 64)
    assert (backbone(images) >= 0).all()
    assert (signed(images) < 0).any()


def test_nobody_publishes_weights() -> None:
    with pytest.raises(UserError, match="give a file"):
        find_backbone("resnet32").download("DEFAULT")
