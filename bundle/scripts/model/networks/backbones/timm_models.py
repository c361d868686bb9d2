"""timm's networks, by ``timm:<name>``: plain vision transformers as chains of blocks, all others as one block."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from scripts.model.networks.backbones.backbone import Backbone, Block, Chain, Layout, check_patches
from scripts.model.networks.backbones.transformers import (
    TokenPool,
    TransformerBlock,
    attended,
    in_heads,
    numbered,
    resized_positions,
    token_chain,
)
from scripts.utils.errors import UserError
from scripts.utils.extras import of_extra

PREFIX = "timm:"
DEFAULT = "DEFAULT"
PLAIN_POOLS = ("token", "avg")


class TimmBlock(TransformerBlock):
    """timm's ``Block`` of vision transformers."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.norm1, self.attn, self.ls1, self.drop_path1 = block.norm1, block.attn, block.ls1, block.drop_path1
        self.norm2, self.mlp, self.ls2, self.drop_path2 = block.norm2, block.mlp, block.ls2, block.drop_path2
        self.takes_prefix = getattr(self.attn, "gate", None) is None

    def attend(self, x: Tensor) -> Tensor:
        return x + self.drop_path1(self.ls1(self.attn(self.norm1(x))))

    def attend_with(self, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        heads = self.attn.num_heads
        q, k, v = self.attn.qkv(self.norm1(x)).chunk(3, 2)
        q, k = self.attn.q_norm(in_heads(q, heads)), self.attn.k_norm(in_heads(k, heads))
        k = torch.cat([in_heads(keys, heads), k], 2)
        y = attended(q, k, torch.cat([in_heads(values, heads), in_heads(v, heads)], 2))
        return x + self.drop_path1(self.ls1(self.attn.proj_drop(self.attn.proj(self.attn.norm(y)))))

    def transform(self, x: Tensor) -> Tensor:
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))


class TimmPool(TokenPool):
    """timm's pooling, with the normalisation that may follow it."""

    def __init__(self, model: Any) -> None:
        super().__init__(model.num_prefix_tokens, model.global_pool == "avg")
        self.fc_norm = model.fc_norm

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, N, c] to [B, c]."""
        return self.fc_norm(x[:, self.special_tokens :].mean(1) if self.mean else x[:, 0])


class WholeModel(nn.Module):
    """A network of any kind: what it says of its depths, and its features.

    Args:
        model: timm's, without classifier, with ``forward_intermediates``.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map [B, 3, H, W] to maps [B, c, H, W], and to the features as the last of them, [B, d, 1, 1]."""
        last, maps = self.model.forward_intermediates(images, output_fmt="NCHW")
        return [*maps, self.model.forward_head(last, pre_logits=True)[:, :, None, None]]


class TimmBackbone(Backbone):
    """A network of timm's.

    Args:
        name: ``timm:`` and what ``timm.create_model`` takes: a name, ``hf-hub:<org>/<name>``, ``local-dir:<folder>``.
    """

    side = None

    @property
    def architecture(self) -> str:
        if ":" not in self.timm_name:
            return self.name
        return f"{PREFIX}{published_settings(self.timm_name)['architecture']}"

    @property
    def timm_name(self) -> str:
        """Its name in timm."""
        return self.name.removeprefix(PREFIX)

    def chain(self, image_size: int, signed: bool = False) -> Chain:
        model = create(self.timm_name, image_size)
        if is_plain(model):
            return plain_chain(model)
        if signed:
            raise UserError(
                f"backbone {self.name} is not known by its blocks, so that its last activation cannot be left out: "
                "choose another method, or a plain vision transformer (key 'backbone')"
            )
        if not hasattr(model, "forward_intermediates"):
            raise UserError(
                f"backbone {self.name} cannot be taken: timm's network says nothing of its depths (it has no "
                "'forward_intermediates'); choose another one (key 'backbone')"
            )
        whole = Block("model", WholeModel(model), "", "model")
        return Chain([whole], Block("pool", nn.Flatten(), ""), ["model"], [], Layout.WHOLE)

    def normalisation(self) -> tuple[list[float], list[float]]:
        published = published_settings(self.timm_name)
        return list(published["mean"]), list(published["std"])

    def licence(self, weights: str) -> str | None:
        return published_settings(self.timm_name).get("license")

    def download(self, weights: str) -> dict[str, Tensor]:
        if weights != DEFAULT:
            raise UserError(
                f"unknown weights '{weights}' for {self.name}: give a path or {DEFAULT}; timm names weights in the "
                "network's own name, after a dot (key 'weights')"
            )
        return dict(create(self.timm_name, pretrained=True).state_dict())

    def fitted(self, state: dict[str, Tensor], image_size: int) -> dict[str, Tensor]:
        model = outline(self.timm_name, image_size)
        if "pos_embed" not in state or getattr(model, "pos_embed", None) is None:
            return state
        special = 0 if model.no_embed_class else model.num_prefix_tokens
        return {**state, "pos_embed": resized_positions(state["pos_embed"], model.patch_embed.grid_size, special)}

    def check_image_size(self, image_size: int) -> None:
        model = outline(self.timm_name, image_size)
        if is_plain(model):
            check_patches(self.name, image_size, model.patch_embed.patch_size[0])


def is_plain(model: Any) -> bool:
    """Say whether timm's network is a chain of plain transformer blocks on tokens."""
    from timm.models import vision_transformer

    return (
        type(model) is vision_transformer.VisionTransformer
        and all(type(block) is vision_transformer.Block for block in model.blocks)
        and model.global_pool in PLAIN_POOLS
        and model.attn_pool is None
        and not model.pool_include_prefix
    )


def plain_chain(model: Any) -> Chain:
    """Take a plain vision transformer apart; what is left of it, without blocks, makes tokens of images."""
    blocks = [TimmBlock(block) for block in model.blocks]
    norm, pool = model.norm, TimmPool(model)
    grid, special_tokens = model.patch_embed.grid_size, model.num_prefix_tokens
    model.blocks, model.norm, model.fc_norm, model.global_pool = nn.Sequential(), nn.Identity(), nn.Identity(), ""
    links = [Block("stem", model, ""), *numbered(blocks, "blocks."), Block("norm", norm, "norm.")]
    return token_chain(links, pool, grid, special_tokens)


def create(name: str, image_size: int | None = None, pretrained: bool = False) -> Any:
    """Make a network of timm's without classifier.

    Raises:
        UserError: without timm, for a name that it does not know, a size that the network cannot take, and weights
            that cannot be had.
    """
    with of_extra("timm", f"backbone {PREFIX}{name} needs timm"):
        import timm
    size: dict[str, Any] = {} if image_size is None or not fixed_size(name) else {"img_size": image_size}
    try:
        return timm.create_model(name, pretrained=pretrained, num_classes=0, **size)
    except OSError as error:  # what requests and huggingface_hub raise offline
        raise UserError(
            f"{PREFIX}{name} cannot be fetched ({type(error).__name__}): fetch it on another machine, and give a "
            f"folder ({PREFIX}local-dir:FOLDER) or a file of its weights (--weights FILE)"
        ) from error
    except (RuntimeError, ValueError, AssertionError) as error:
        raise UserError(f"timm cannot make {PREFIX}{name}: {str(error).splitlines()[0]} (key 'backbone')") from error


@cache
def fixed_size(name: str) -> bool:
    """Say whether a network is built for images of one size."""
    return bool(published_settings(name).get("fixed_input_size"))


@cache
def published_settings(name: str) -> dict[str, Any]:
    """Return what timm says of a network's weights: their normalisation, size and licence."""
    return dict(outline(name).pretrained_cfg)


def outline(name: str, image_size: int | None = None) -> Any:
    """Make a network of timm's without numbers, to ask it for shapes and settings."""
    with torch.device("meta"):
        return create(name, image_size)
