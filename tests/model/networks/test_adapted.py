"""A backbone is cut at sites and after levels; a head of levels reads means and deviations of the maps there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import timm
import torch
from torch import Tensor

from scripts.learning.engines import ContinualTrainer
from scripts.learning.handlers import AdapterAveragingHandler, AdapterTuningHandler
from scripts.learning.losses import auxiliary_cross_entropy
from scripts.learning.memory import ExemplarMemory
from scripts.model.networks import EVERY, PUBLISHED, AdaptedBackbone, ContinualNet, Convolutions, LowRank, Merging
from scripts.model.networks.backbones import black_image
from scripts.model.networks.heads import LEVELS
from scripts.utils.errors import UserError

VIT, SIDE = "timm:test_vit", 32  # six blocks of 64 channels, four patches
# one of each layout; torchvision's are looked at where they have an adapter's sites
LAYOUTS = ["mobilenet_v2", "swin_t", VIT, "timm:test_convnext", "resnet10_3d"]


def expected_levels(maps: Sequence[Tensor]) -> Tensor:
    """Mean and deviation of each map of one image, a channel at a time."""
    found: list[float] = []
    for level in maps:
        found += [float(channel.mean()) for channel in level]
        found += [float(channel.std(correction=0)) for channel in level]
    return torch.tensor(found)


# -- sites ----------------------------------------------------------------------------------------------------------


def test_an_adapter_can_stand_before_any_block_but_the_first() -> None:
    backbone = AdaptedBackbone("mobilenet_v2", Convolutions(), ["features.5", "features.1"], ["task0"])
    assert backbone.sites == ("features.1", "features.5")
    assert [block.new("task0").layers[0].in_channels for block in backbone.blocks.values()] == [32, 32]
    assert backbone(torch.zeros(1, 3, 32, 32)).shape == (1, 1, 1280)


@pytest.mark.parametrize("site", ["features.0", "features.19", "layer1", "classifier"])
def test_an_unknown_site_is_refused_with_the_choice(site: str) -> None:
    with pytest.raises(UserError, match=f"mobilenet_v2 has no site '{site}': choose among features.1, .*features.18"):
        AdaptedBackbone("mobilenet_v2", sites=[site])


def test_the_sites_of_a_transformer_are_its_blocks() -> None:
    with pytest.raises(UserError, match=f"{VIT} has no site 'features.3': choose among blocks.0, .*blocks.5, norm "):
        AdaptedBackbone(VIT, sites=["features.3"], image_size=SIDE)
    backbone = AdaptedBackbone(VIT, LowRank(), ["blocks.4"], ["task0"], image_size=SIDE)
    assert [*backbone.branch("task0")] == ["blocks_4"]
    layers = backbone.blocks["blocks_4"].layers.values()
    assert {name.split(".")[0] for name in layers} == {"blocks_4", "blocks_5"}
    assert sum(name.endswith("attn.qkv.weight") for name in layers) == 2


@pytest.mark.parametrize("name", LAYOUTS)
def test_however_it_is_cut_the_features_are_the_same(name: str) -> None:
    backbone = AdaptedBackbone(name, image_size=64)
    image = torch.randn(black_image(backbone, 64).shape, generator=torch.Generator().manual_seed(0))
    if backbone.spatial_dims == 3:
        image = image[..., :9, :9, :9]
    last = AdaptedBackbone(name, sites=backbone.sites[-1:], image_size=64)
    last.load_state_dict({own: backbone.state_dict()[key] for own, key in same_entries(last, backbone).items()})
    with torch.no_grad():
        assert torch.equal(last(image), backbone(image))


def same_entries(one: AdaptedBackbone, other: AdaptedBackbone) -> dict[str, str]:
    """By what a file of weights calls them."""
    named = {file_key: key for key, file_key in other.file_keys.items()}
    return {key: named[file_key] for key, file_key in one.file_keys.items()}


# -- levels ---------------------------------------------------------------------------------------------------------


def test_features_are_the_last_mean_then_mean_and_deviation_of_each_map_before(
    tiny: SimpleNamespace, images: Tensor
) -> None:
    network = tiny.network("levels", sizes=[2, 1]).eval()
    backbone = network.backbone
    with torch.no_grad():
        features, maps = backbone.features_and_maps(images)
    assert features.shape == (5, 1, backbone.width)
    for image in range(5):
        expected = torch.cat([maps[-1][image].mean((1, 2)), expected_levels([level[image] for level in maps[:-1]])])
        torch.testing.assert_close(features[image, 0], expected, rtol=1e-3, atol=1.1e-3)


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_has_levels(name: str) -> None:
    backbone, plain = (AdaptedBackbone(name, reads=reads, image_size=SIDE) for reads in (LEVELS, "rectified"))
    plain.load_state_dict({own: backbone.state_dict()[key] for own, key in same_entries(plain, backbone).items()})
    image = black_image(backbone, SIDE) + 1
    with torch.no_grad():
        features, maps = backbone.features_and_maps(image)
        assert torch.equal(features[..., : plain.width], plain(image))
    assert features.shape == (1, 1, backbone.width)
    read = [maps[index] for index in backbone.read or []]
    assert len(read) > 1
    assert all(level.dim() == 2 + backbone.spatial_dims for level in read)
    assert backbone.head_width == backbone.width - plain.width == 2 * sum(level.shape[1] for level in read)


LEVELS_OF: list[tuple[str, str | list[str], list[str]]] = [
    ("mobilenet_v2", PUBLISHED, ["features.4", "features.11", "features.14"]),
    ("mobilenet_v2", EVERY, [f"features.{number}" for number in range(1, 15)]),
    ("mobilenet_v2", ["features.16", "features.0"], ["features.0", "features.16"]),
    ("resnet18", PUBLISHED, ["layer1", "layer2", "layer3"]),
    ("resnet18", EVERY, ["layer1", "layer2", "layer3"]),
    ("densenet121", PUBLISHED, ["features.transition1", "features.transition2", "features.transition3"]),
    ("swin_t", PUBLISHED, ["features.2", "features.4", "features.6"]),
    ("vit_b_32", PUBLISHED, ["blocks.2", "blocks.5", "blocks.8"]),
    (VIT, PUBLISHED, ["blocks.1", "blocks.2", "blocks.3"]),
    (VIT, EVERY, [f"blocks.{number}" for number in range(5)]),
    (VIT, "blocks.5", ["blocks.5"]),
]


@pytest.mark.parametrize(("name", "levels", "expected"), LEVELS_OF, ids=str)
def test_levels_are_the_published_ones_every_one_or_those_named(
    name: str, levels: str | list[str], expected: list[str]
) -> None:
    with torch.device("meta"):
        backbone = AdaptedBackbone(name, reads=LEVELS, levels=levels, image_size=SIDE)
    assert list(backbone.levels) == expected
    assert len(backbone.read or []) == len(expected)


@pytest.mark.parametrize("levels", [PUBLISHED, EVERY, ["blocks.4", "blocks.0"], ["stem", "blocks.5"]], ids=str)
def test_levels_of_tokens_are_those_of_the_patches_without_the_class_token(
    levels: str | list[str], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=0, img_size=64).eval()
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    backbone = AdaptedBackbone(VIT, reads=LEVELS, levels=levels, image_size=64)
    backbone.load_pretrained(str(tmp_path / "weights.pth"))
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        x = model._pos_embed(model.patch_embed(images))
        tokens = {"stem": x}
        for number, block in enumerate(model.blocks):
            x = tokens[f"blocks.{number}"] = block(x)
        features, maps = backbone.features_and_maps(images)
        read = [tokens[level][:, 1:] for level in backbone.levels]
        for image in range(2):
            expected = torch.cat([model.norm(x)[image, 0], expected_levels([level[image].T for level in read])])
            torch.testing.assert_close(features[image, 0], expected, rtol=1e-3, atol=1.1e-3)
    for index, level in zip(backbone.read or [], read, strict=True):
        assert torch.equal(maps[index].flatten(2), level.transpose(1, 2))


def test_named_levels_of_a_convolutional_network_are_the_maps_after_these_blocks() -> None:
    torch.manual_seed(0)
    backbone = AdaptedBackbone("mobilenet_v2", reads=LEVELS, levels=["features.16", "features.2"], image_size=SIDE)
    x = image = torch.randn(1, 3, SIDE, SIDE)
    found: dict[str, Tensor] = {}
    with torch.no_grad():
        features = backbone(image)
        for module in (backbone.stem, *(block.block for block in backbone.blocks.values())):
            for name, layer in module.named_children():
                x = found[name] = layer(x)
    expected = expected_levels([found["features_2"][0], found["features_16"][0]])
    torch.testing.assert_close(features[0, 0, 1280:], expected, rtol=1e-3, atol=1.1e-3)


@pytest.mark.parametrize("level", ["features.18", "layer1", "pool"])
def test_an_unknown_level_is_refused_with_the_choice(level: str) -> None:
    message = f"has no level '{level}': give 'published', 'every' or blocks among features.0, .*features.17 "
    with pytest.raises(UserError, match=message):
        AdaptedBackbone("mobilenet_v2", reads=LEVELS, levels=[level])


def test_a_single_site_has_no_level_before_the_last() -> None:
    with pytest.raises(UserError, match="reads the maps before the last site: give two or more sites .*name levels"):
        ContinualNet("resnet18", "levels", sites=["layer3"], levels=PUBLISHED)
    assert ContinualNet("resnet18", "levels", sites=["layer3"], levels=["layer1"]).backbone.head_width == 2 * 64


def test_adapters_change_the_levels_behind_them_alone(tiny: SimpleNamespace) -> None:
    network = ContinualNet("mobilenet_v2", "levels", sites=["features.3"], levels=["features.1", "features.4"])
    network.grow(2)
    network.add_adapters()
    tiny.randomise(network)
    network.eval()
    assert len(network.branch("task0")) == 1
    image = torch.randn(1, 3, 33, 33, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), network.through(["backbone"]):
        plain = network(image).features[0, 0, 1280:].split([2 * 16, 2 * 32])
    with torch.no_grad():
        adapted = network(image).features[0, 0, 1280:].split([2 * 16, 2 * 32])
    assert torch.equal(plain[0], adapted[0])
    assert not torch.allclose(plain[1], adapted[1])


def test_a_map_of_one_value_has_a_slope() -> None:
    backbone = AdaptedBackbone("mobilenet_v2", reads=LEVELS).train()
    image = torch.zeros(2, 3, 32, 32, requires_grad=True)
    backbone(image).sum().backward()
    assert image.grad is not None
    assert image.grad.isfinite().all()


def test_adapters_are_tuned_as_under_a_head_that_reads_the_last_map(tmp_path: Path, tiny: SimpleNamespace) -> None:
    tasks = tiny.tasks(tmp_path)

    def tuned(head: str) -> ContinualNet:
        network = tiny.network(head, seed=3, levels=PUBLISHED)  # cut where the other one is
        stage = tiny.stage(
            "adapter_tuning", epochs=2, loss=auxiliary_cross_entropy, trains=["adapter", "auxiliary"], data="task"
        )
        handlers = [AdapterTuningHandler(network), AdapterAveragingHandler(network, Merging())]
        trainer: ContinualTrainer = tiny.trainer(network, tasks, [stage], handlers, ExemplarMemory(0))
        trainer.run()
        return network

    plain, levels = tuned("unified"), tuned("levels")
    expected = plain.backbone.state_dict()
    for key, value in levels.backbone.state_dict().items():
        assert torch.equal(value, expected[key]), key


# -- what saliency reads ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "reads", "last"),
    [
        ("mobilenet_v2", "rectified", "features_18"),
        ("mobilenet_v2", LEVELS, "features_14"),
        (VIT, "rectified", "blocks_4"),
        (VIT, LEVELS, "blocks_4"),
    ],
)
def test_the_last_module_that_is_read_has_a_map_that_the_head_depends_on(name: str, reads: str, last: str) -> None:
    backbone = AdaptedBackbone(name, reads=reads, image_size=SIDE)
    path = backbone.last_read()
    assert re.fullmatch(rf"blocks\.\w+\.block\.{last}", path)
    kept: list[Tensor] = []
    backbone.get_submodule(path).register_forward_hook(lambda module, x, y: kept.append(y))
    features = backbone(torch.randn(1, 3, SIDE, SIDE))[..., -backbone.head_width :]
    (slope,) = torch.autograd.grad(features.square().sum(), kept)
    assert bool(slope.abs().sum() > 0)
