"""Plain vision transformers of torchvision and MONAI as chains of blocks on tokens."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import torch
from monai.networks.nets import ViT
from torch import Tensor, nn
from torch.nn.functional import interpolate, linear, scaled_dot_product_attention
from torchvision.models import get_model, get_model_weights

from scripts.model.networks.backbones.backbone import Block, Chain, Layout, PatchedBackbone
from scripts.model.networks.backbones.weights import download_torchvision, torchvision_licence
from scripts.utils.errors import UserError

PATCHES = {"vit_b_16": 16, "vit_b_32": 32}
VOLUME_PATCH = 16
VOLUME_MEAN, VOLUME_STD = [0.5], [0.5]


class TransformerBlock(nn.Module):
    """A block of a plain transformer in its two halves: what stands beside the second can read what the first says.

    A family's block keeps the names of the library's layers, so that its weights fit.
    """

    takes_prefix = False
    """Whether :meth:`attend_with` is there."""

    @abstractmethod
    def attend(self, x: Tensor) -> Tensor:
        """Add what the tokens [B, N, c] tell each other."""

    def attend_with(self, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Add what the tokens [B, N, c] tell each other, and what a prefix of keys and values [B, L, c] each says.

        Source: Wang et al., DualPrompt (ECCV 2022), equation 6; as in its code, the prefix stands behind the projection
        of keys and values.
        """
        raise NotImplementedError

    @abstractmethod
    def transform(self, x: Tensor) -> Tensor:
        """Add what the MLP makes of each token."""

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens [B, N, c] to tokens."""
        return self.transform(self.attend(x))


def in_heads(x: Tensor, heads: int) -> Tensor:
    """Return tokens [B, N, c] divided among the heads of attention, [B, heads, N, c / heads]."""
    return x.unflatten(2, [heads, x.shape[2] // heads]).transpose(1, 2)


def attended(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Return what attention says, [B, N, c], of queries [B, heads, N, c / heads], keys and values of as many heads."""
    return scaled_dot_product_attention(queries, keys, values).transpose(1, 2).flatten(2)


class TorchvisionBlock(TransformerBlock):
    """torchvision's ``EncoderBlock``."""

    takes_prefix = True

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.ln_1, self.self_attention, self.dropout = block.ln_1, block.self_attention, block.dropout
        self.ln_2, self.mlp = block.ln_2, block.mlp

    def attend(self, x: Tensor) -> Tensor:
        y = self.ln_1(x)
        return x + self.dropout(self.self_attention(y, y, y, need_weights=False)[0])

    def attend_with(self, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        heads = self.self_attention.num_heads
        projected = linear(self.ln_1(x), self.self_attention.in_proj_weight, self.self_attention.in_proj_bias)
        q, k, v = projected.chunk(3, 2)
        k, v = in_heads(torch.cat([keys, k], 1), heads), in_heads(torch.cat([values, v], 1), heads)
        return x + self.dropout(self.self_attention.out_proj(attended(in_heads(q, heads), k, v)))

    def transform(self, x: Tensor) -> Tensor:
        return x + self.mlp(self.ln_2(x))


class MonaiBlock(TransformerBlock):
    """MONAI's ``TransformerBlock`` without cross-attention."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.norm1, self.attn, self.norm2, self.mlp = block.norm1, block.attn, block.norm2, block.mlp

    def attend(self, x: Tensor) -> Tensor:
        return x + self.attn(self.norm1(x))

    def transform(self, x: Tensor) -> Tensor:
        return x + self.mlp(self.norm2(x))


class TokenPool(nn.Module):
    """From tokens to features.

    Args:
        special_tokens: how many stand before those of the image.
        mean: the mean of the image's tokens, else the first token, the class token.
    """

    def __init__(self, special_tokens: int, mean: bool) -> None:
        super().__init__()
        self.special_tokens = special_tokens
        self.mean = mean

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, N, c] to [B, c]."""
        return x[:, self.special_tokens :].mean(1) if self.mean else x[:, 0]


class TorchvisionStem(nn.Module):
    """Patches, class token and positions of torchvision's ``VisionTransformer``."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.conv_proj, self.class_token = model.conv_proj, model.class_token
        self.encoder = Positions(model.encoder)

    def forward(self, images: Tensor) -> Tensor:
        """Map [B, 3, H, W] to tokens [B, 1 + N, c]."""
        patches = self.conv_proj(images).flatten(2).transpose(1, 2)
        return self.encoder(torch.cat([self.class_token.expand(patches.shape[0], -1, -1), patches], 1))


class Positions(nn.Module):
    """Adds the positions of torchvision's ``Encoder``."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.pos_embedding, self.dropout = encoder.pos_embedding, encoder.dropout

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(x + self.pos_embedding)


class TorchvisionTransformer(PatchedBackbone):
    """``vit_b_16``, ``vit_b_32``."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.patch = PATCHES[name]

    def chain(self, image_size: int, signed: bool = False) -> Chain:
        model: Any = get_model(self.name, weights=None, image_size=image_size)
        layers = [TorchvisionBlock(layer) for layer in model.encoder.layers]
        blocks = [
            Block("stem", TorchvisionStem(model), ""),
            *numbered(layers, "encoder.layers.encoder_layer_"),
            Block("norm", model.encoder.ln, "encoder.ln."),
        ]
        return token_chain(blocks, TokenPool(1, mean=False), (image_size // self.patch,) * 2, special_tokens=1)

    def normalisation(self) -> tuple[list[float], list[float]]:
        preset = get_model_weights(self.name).DEFAULT.transforms()
        return list(preset.mean), list(preset.std)

    def download(self, weights: str) -> dict[str, Tensor]:
        return download_torchvision(self.name, weights)

    def licence(self, weights: str) -> str | None:
        return torchvision_licence(self.name, weights)

    def fitted(self, state: dict[str, Tensor], image_size: int) -> dict[str, Tensor]:
        key = "encoder.pos_embedding"
        if key in state:
            state = {**state, key: resized_positions(state[key], (image_size // self.patch,) * 2, 1)}
        return state


class VolumeTransformer(PatchedBackbone):
    """MONAI's ``ViT`` for volumes of one channel, in MONAI's own size, with the mean of all tokens as its features."""

    dimensions = 3
    patch = VOLUME_PATCH

    def chain(self, image_size: int, signed: bool = False) -> Chain:
        model = ViT(in_channels=1, img_size=image_size, patch_size=self.patch)
        blocks = [
            Block("stem", model.patch_embedding, "patch_embedding."),
            *numbered([MonaiBlock(layer) for layer in model.blocks], "blocks."),
            Block("norm", model.norm, "norm."),
        ]
        return token_chain(blocks, TokenPool(0, mean=True), (image_size // self.patch,) * 3)

    def normalisation(self) -> tuple[list[float], list[float]]:
        return list(VOLUME_MEAN), list(VOLUME_STD)

    def download(self, weights: str) -> dict[str, Tensor]:
        raise UserError(
            f"backbone {self.name} has no weights called '{weights}': give the path of a file of MONAI's ViT "
            "(key 'weights')"
        )

    def fitted(self, state: dict[str, Tensor], image_size: int) -> dict[str, Tensor]:
        key = "patch_embedding.position_embeddings"
        state = {name: value for name, value in state.items() if ".norm_cross_attn." not in name}  # is not in use
        if key in state:
            state[key] = resized_positions(state[key], (image_size // self.patch,) * 3, 0)
        return state


def numbered(layers: Sequence[nn.Module], prefix: str) -> Iterator[Block]:
    """Yield a transformer's blocks; all families call them ``blocks.0``, ``blocks.1``, ..."""
    for index, layer in enumerate(layers):
        yield Block(f"blocks.{index}", layer, f"{prefix}{index}.")


def token_chain(blocks: Sequence[Block], pool: nn.Module, grid: tuple[int, ...], special_tokens: int = 0) -> Chain:
    """Return a chain on tokens, with a site at each of its transformer blocks."""
    sites = [block.name for block in blocks if isinstance(block.module, TransformerBlock)]
    return Chain(blocks, Block("pool", pool, ""), sites, sites, Layout.TOKENS, grid, special_tokens)


def resized_positions(positions: Tensor, grid: tuple[int, ...], special_tokens: int) -> Tensor:
    """Return the positions of a grid of another size, interpolated.

    Source: Dosovitskiy et al., An image is worth 16x16 words (ICLR 2021), section 3.2: two-dimensional interpolation;
    bicubic, of volumes trilinear.

    Args:
        positions: [1, special tokens + N, c], of a square or a cube.
        grid: the new one.
        special_tokens: whose positions stay as they are.
    """
    special, own = positions.float().split([special_tokens, positions.shape[1] - special_tokens], 1)
    side = round(own.shape[1] ** (1 / len(grid)))
    if own.shape[1] == prod(grid) or side ** len(grid) != own.shape[1]:
        return positions
    mode = "bicubic" if len(grid) == 2 else "trilinear"
    places = own.transpose(1, 2).unflatten(2, [side] * len(grid))
    larger = interpolate(places, grid, mode=mode, antialias=len(grid) == 2, align_corners=False)
    return torch.cat([special, larger.flatten(2).transpose(1, 2)], 1)
