"""timm's networks come by name: plain vision transformers as chains, all others as one block; what it lacks is said."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub.constants
import pytest
import timm
import torch
from timm.models import register_model, vision_transformer
from torch import nn

from scripts.model.networks import AdaptedBackbone, ContinualNet, Convolutions, LowRank, find_backbone, image_spec
from scripts.model.networks.backbones import Layout, weights_licence
from scripts.model.networks.backbones.timm_models import create, is_plain
from scripts.model.networks.heads import LEVELS
from scripts.utils.errors import UserError

TINY = "deit_tiny_patch16_224"


@pytest.fixture(scope="module")
def deit(test_data: Path) -> Path:
    """DeiT-Tiny's weights, half precision."""
    path = test_data / "weights" / f"{TINY}_in1k_fp16.pth"
    if not path.is_file():
        pytest.skip(f"no weights of DeiT-Tiny: {path} does not exist")
    return path


def timms(weights: Path, size: int) -> Any:
    """timm's own network with these weights, loaded as timm loads them."""
    model = timm.create_model(TINY, num_classes=0, img_size=size)
    state = {key: value.float() for key, value in torch.load(weights, weights_only=True).items()}
    missing, _ = model.load_state_dict(vision_transformer.checkpoint_filter_fn(state, model), strict=False)
    assert missing == []
    return model.eval()


@pytest.mark.parametrize("size", [224, 96])
def test_deits_weights_give_timms_own_features(size: int, deit: Path) -> None:
    backbone = AdaptedBackbone(f"timm:{TINY}", image_size=size)
    backbone.load_pretrained(str(deit))
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, found = timms(deit, size)(images), backbone(images)[:, 0]
    largest = float(expected.abs().max())
    assert float((found - expected).abs().max()) <= 1e-5 * largest
    assert float((expected[0] - expected[1]).abs().max()) > 0.01 * largest


@pytest.mark.parametrize("name", ["timm:test_resnet", "timm:test_convnext", "timm:test_vit3", "timm:test_efficientnet"])
def test_other_networks_are_one_block_whose_depths_a_head_may_read(name: str) -> None:
    torch.manual_seed(0)
    size = 64
    backbone = AdaptedBackbone(name, reads=LEVELS, image_size=size)
    model = create(name.removeprefix("timm:"), size).eval()
    model.load_state_dict({file_key: backbone.state_dict()[key] for key, file_key in backbone.file_keys.items()})
    assert backbone.sites == ("model",)
    assert backbone.layout is Layout.WHOLE
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        features = backbone(images)
        last, depths = model.forward_intermediates(images)
        expected = [model.forward_head(last, pre_logits=True)]
        for level in depths:
            expected += [level.mean((2, 3)), level.var((2, 3), correction=0).add(1e-6).sqrt()]
    torch.testing.assert_close(features[:, 0], torch.cat(expected, 1), rtol=1e-5, atol=1e-5)


def test_adapters_of_other_networks_change_all_of_their_layers(tiny: SimpleNamespace) -> None:
    network = ContinualNet("timm:test_resnet", adapter=LowRank(2), image_size=32)
    network.grow(2)
    network.add_adapters()
    (block,) = network.backbone.blocks.values()
    layers = block.block.named_modules()
    convolutions = {f"{name}.weight" for name, module in layers if isinstance(module, nn.Conv2d)}
    assert set(block.layers.values()) == convolutions
    before, image = network.backbone(torch.ones(1, 3, 32, 32)), torch.ones(1, 3, 32, 32)
    tiny.randomise(network.branch("task0"))
    for change in network.branch("task0")["model"].values():
        nn.init.normal_(change.b)
    assert not torch.allclose(network.backbone(image), before, rtol=1e-2)


PLAIN = {
    "test_vit": True,
    "vit_tiny_patch16_224": True,
    TINY: True,
    "test_vit2": True,
    "test_vit3": False,
    "test_resnet": False,
}


@pytest.mark.parametrize("name", PLAIN)
def test_a_plain_transformer_is_taken_apart(name: str) -> None:
    with torch.device("meta"):
        assert is_plain(create(name, 32 if "vit" in name or name == TINY else None)) == PLAIN[name]


def test_the_images_look_as_timm_says() -> None:
    assert image_spec("timm:test_vit", 64).mean == [0.5, 0.5, 0.5]
    published = timm.get_pretrained_cfg(TINY)
    assert find_backbone(f"timm:{TINY}").normalisation() == (list(published.mean), list(published.std))


def test_the_licence_of_weights_is_what_their_publisher_says() -> None:
    assert find_backbone("timm:test_vit").licence("DEFAULT") == "apache-2.0"
    assert "SWAG" in str(find_backbone("vit_b_16").licence("IMAGENET1K_SWAG_LINEAR_V1"))
    assert weights_licence("resnet18", "DEFAULT") == "not said by its publisher's library"
    assert weights_licence("timm:test_vit", "own/weights.pth") == "a file's: its publisher says it"
    assert weights_licence("resnet18", None) == "no pretrained weights"


def test_without_timm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"timm:test_vit needs timm: pip install 'dynammo-bundle\[timm\]'"):
        create("test_vit", 32)


def test_a_name_that_timm_does_not_know_is_refused() -> None:
    with pytest.raises(UserError, match=r"timm cannot make timm:no_such_net: Unknown model \(no_such_net\) "):
        AdaptedBackbone("timm:no_such_net")


def test_weights_by_another_name_are_refused_with_where_timm_names_them() -> None:
    backbone = AdaptedBackbone("timm:test_vit", image_size=32)
    with pytest.raises(UserError, match="unknown weights 'IMAGENET1K_V1' for timm:test_vit: give a path or DEFAULT"):
        backbone.load_pretrained("IMAGENET1K_V1")


def test_offline_a_download_says_what_to_fetch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)  # read from the environment once
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    backbone = AdaptedBackbone("timm:test_vit", image_size=32)
    with pytest.raises(UserError, match="test_vit cannot be fetched .*fetch it on another machine, .*local-dir:FOLDER"):
        backbone.load_pretrained("DEFAULT")


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save(timm.create_model("test_vit2", img_size=32).state_dict(), tmp_path / "weights.pth")
    with pytest.raises(UserError, match="the weights do not fit backbone timm:test_vit: "):
        AdaptedBackbone("timm:test_vit", image_size=32).load_pretrained(str(tmp_path / "weights.pth"))


@register_model
def without_depths(pretrained: bool = False, **settings: Any) -> nn.Module:
    """A network that somebody else registers with timm."""
    network = nn.Conv2d(3, 4, 3)
    network.pretrained_cfg = {}  # type: ignore[assignment]
    return network


def test_a_network_that_says_nothing_of_its_depths_is_refused_by_name() -> None:
    with pytest.raises(UserError, match="backbone timm:without_depths cannot be taken: .*'forward_intermediates'"):
        AdaptedBackbone("timm:without_depths", image_size=32)


def test_convolutions_between_its_blocks_are_refused_by_name() -> None:
    for name in ("timm:test_vit", "timm:test_resnet"):
        with pytest.raises(UserError, match=f"adapters 'conv' .*, and {name} is none: list part 'lora'"):
            AdaptedBackbone(name, Convolutions(), image_size=32)


def test_a_network_of_one_block_keeps_its_last_activation_and_says_so() -> None:
    with pytest.raises(UserError, match="timm:test_resnet is not known by its blocks, so that its last activation"):
        find_backbone("timm:test_resnet").chain(64, signed=True)


def test_a_network_in_a_folder_is_written_down_by_its_architecture(tmp_path: Path) -> None:
    timm.models.save_for_hf(timm.create_model("test_vit", num_classes=0), tmp_path)
    backbone = find_backbone(f"timm:local-dir:{tmp_path}")
    assert backbone.architecture == "timm:test_vit"
    assert backbone.chain(32).sites == find_backbone("timm:test_vit").chain(32).sites
    assert "blocks.0.attn.qkv.weight" in backbone.download("DEFAULT")
