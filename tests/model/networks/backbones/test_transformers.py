"""Plain transformers take images of one size; weights for another one have their positions interpolated."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from monai.networks.nets import ViT
from timm.layers import resample_abs_pos_embed
from torch import Tensor
from torchvision.models import get_model
from torchvision.models.vision_transformer import interpolate_embeddings

from scripts.model.networks import AdaptedBackbone, Bottleneck
from scripts.model.networks.backbones.transformers import resized_positions
from scripts.utils.errors import UserError


def smooth(side: int, dims: int, channels: int = 4) -> Tensor:
    """Positions that vary slowly, [1, side ** dims, channels]."""
    axes = torch.meshgrid(*[torch.linspace(0, 1, side)] * dims, indexing="ij")
    phases = [(axis[..., None] * torch.arange(1, channels + 1)).cos() for axis in axes]
    return torch.stack(phases).sum(0).flatten(0, dims - 1)[None]


@pytest.mark.parametrize("special", [0, 1, 2])
@pytest.mark.parametrize("grid", [(5, 5), (14, 14), (10, 3)])
def test_positions_of_another_size_are_timms(grid: tuple[int, int], special: int) -> None:
    positions = torch.randn(1, special + 49, 6, generator=torch.Generator().manual_seed(0))
    expected = resample_abs_pos_embed(positions, list(grid), num_prefix_tokens=special)
    torch.testing.assert_close(resized_positions(positions, grid, special), expected, rtol=1e-5, atol=1e-5)


def test_positions_of_a_larger_size_are_near_torchvisions_which_has_corners_aligned() -> None:
    positions = torch.cat([torch.randn(1, 1, 4), smooth(7, 2)], 1)
    state = {"encoder.pos_embedding": positions}
    expected = interpolate_embeddings(14 * 16, 16, state)["encoder.pos_embedding"]
    found = resized_positions(positions, (14, 14), 1)
    assert torch.equal(found[:, 0], positions[:, 0])
    inner = (found - expected)[:, 1:].unflatten(1, [14, 14])[:, 1:-1, 1:-1]
    assert float(inner.abs().max()) < 0.2 * float(positions[:, 1:].std())


def test_positions_of_volumes_lie_between_their_neighbours() -> None:
    positions = smooth(2, 3)
    found = resized_positions(positions, (4, 4, 4), 0).view(4, 4, 4, -1)
    corners = positions.view(2, 2, 2, -1)
    torch.testing.assert_close(found[0, 0, 0], corners[0, 0, 0])
    torch.testing.assert_close(found[3, 0, 3], corners[1, 0, 1])
    torch.testing.assert_close(found[1, 0, 0], 0.75 * corners[0, 0, 0] + 0.25 * corners[1, 0, 0])
    middle = found[1:3, 1:3, 1:3].mean((0, 1, 2))
    torch.testing.assert_close(middle, corners.mean((0, 1, 2)))


@pytest.mark.parametrize(("dims", "special"), [(2, 0), (2, 1), (3, 0)])
def test_positions_of_the_same_size_stay_bit_equal(dims: int, special: int) -> None:
    positions = torch.randn(1, special + 4**dims, 6).half()
    assert resized_positions(positions, (4,) * dims, special) is positions


def test_weights_for_another_size_are_loaded_with_their_positions_interpolated(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = get_model("vit_b_32", weights=None, image_size=96).state_dict()
    with torch.no_grad():
        state["encoder.pos_embedding"].copy_(torch.randn(1, 10, 768))
    torch.save(state, tmp_path / "weights.pth")
    backbone = AdaptedBackbone("vit_b_32", image_size=64)
    backbone.load_pretrained(str(tmp_path / "weights.pth"))
    found = backbone.stem.stem.encoder.pos_embedding
    expected = resample_abs_pos_embed(state["encoder.pos_embedding"], [2, 2], num_prefix_tokens=1)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    own = {file_key: backbone.state_dict()[key] for key, file_key in backbone.file_keys.items()}
    assert all(torch.equal(own[key], value) for key, value in state.items() if key in own and "pos_" not in key)


def test_a_volumes_weights_for_another_size_are_loaded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = ViT(in_channels=1, img_size=48, patch_size=16).state_dict()
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "weights.pth")
    backbone = AdaptedBackbone("vit_3d", image_size=32)
    backbone.load_pretrained(str(tmp_path / "weights.pth"))
    assert backbone.stem.stem.position_embeddings.shape == (1, 8, 768)
    assert torch.equal(backbone.blocks["blocks_0"].block.blocks_0.norm1.weight, state["blocks.0.norm1.weight"])


@pytest.mark.parametrize(
    ("name", "size", "nearest"),
    [("vit_b_16", 100, 96), ("vit_b_32", 33, 32), ("vit_3d", 40, 32), ("timm:test_vit", 90, 96)],
)
def test_a_size_that_is_no_multiple_of_the_patch_is_refused(name: str, size: int, nearest: int) -> None:
    patch = 32 if name == "vit_b_32" else 16
    with pytest.raises(UserError, match=f"image_size {size} is no multiple of {patch}, .*{name}: use {nearest} "):
        AdaptedBackbone(name, Bottleneck(), image_size=size)


def test_weights_of_volumes_are_not_downloaded() -> None:
    with pytest.raises(UserError, match=r"vit_3d has no weights called 'DEFAULT': give the path of a file of MONAI's"):
        AdaptedBackbone("vit_3d", image_size=32).load_pretrained("DEFAULT")
