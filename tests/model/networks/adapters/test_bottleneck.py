"""A bottleneck beside a transformer's MLP changes nothing at first, learns alone, and is merged in every way."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import Tensor, nn

from scripts.learning.features import FeatureExtractor
from scripts.learning.handlers import AdapterStatisticsHandler
from scripts.model.networks import (
    ROWS,
    AdaptedBackbone,
    AdapterStatistics,
    Bottleneck,
    ContinualNet,
    Merging,
    RegMean,
    merge,
)
from scripts.utils.errors import UserError

VIT = "timm:test_vit"  # six blocks of 64 channels
SIDE = 32
TASKS = [{"name": "first", "classes": ["a", "b"]}, {"name": "second", "classes": ["c"]}]


def network_of(tiny: SimpleNamespace, tasks: int = 2, **arguments: Any) -> ContinualNet:
    network = ContinualNet(VIT, adapter=Bottleneck(8, 0.5), image_size=SIDE, **arguments)
    for task in TASKS[:tasks]:
        network.grow(len(task["classes"]))
        network.add_adapters()
    tiny.randomise(network)
    return network.eval()


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    return torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", [VIT, "vit_b_32", "vit_3d"])
def test_a_new_adapter_changes_nothing(name: str) -> None:
    backbone = AdaptedBackbone(name, Bottleneck(), image_size=SIDE)
    backbone.add_branch("task0")
    shape = (1, 3, SIDE, SIDE) if backbone.spatial_dims == 2 else (1, 1, SIDE, SIDE, SIDE)
    image = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = backbone(image)
        backbone.branches = ["task0"]
        assert torch.equal(backbone(image), plain)
        nn.init.normal_(backbone.blocks["blocks_3"].adapters["task0"].up.weight)
        assert not torch.allclose(backbone(image), plain, rtol=1e-2)


def test_it_stands_beside_the_mlp_of_the_named_blocks(tiny: SimpleNamespace, pictures: Tensor) -> None:
    network = network_of(tiny, tasks=1, sites=["blocks.1", "blocks.4"])
    state = {key: network.state_dict()[f"backbone.{own}"] for own, key in network.backbone.file_keys.items()}
    model = timm.create_model("test_vit", num_classes=0, img_size=SIDE).eval()
    model.load_state_dict(state)
    adapters = {1: network.branch("task0")["blocks_1"], 4: network.branch("task0")["blocks_4"]}
    with torch.no_grad():
        x = model._pos_embed(model.patch_embed(pictures))
        for number, block in enumerate(model.blocks):
            x = x + block.attn(block.norm1(x))
            y = x + block.mlp(block.norm2(x))
            if number in adapters:
                down, up = adapters[number].down, adapters[number].up
                y = y + 0.5 * (up.bias + (x @ down.weight.T + down.bias).relu() @ up.weight.T)
            x = y
        expected = model.norm(x)[:, 0]
        torch.testing.assert_close(network(pictures).features[:, 0], expected, rtol=1e-5, atol=1e-5)


def test_a_task_has_two_layers_and_their_biases_a_site(tiny: SimpleNamespace) -> None:
    network = network_of(tiny)
    (*_, newest) = network.backbone.added().values()
    assert [sum(p.numel() for p in adapter.parameters()) for adapter in newest] == [2 * 64 * 8 + 8 + 64] * 6
    assert network.kept_bytes() == 2 * 6 * 4 * (2 * 64 * 8 + 8 + 64)


def test_it_alone_learns(tiny: SimpleNamespace, pictures: Tensor) -> None:
    network = network_of(tiny)
    before = tiny.copy_of(network.state_dict())
    network.train_only(["adapter"])
    network.train()
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    network(pictures).features.square().sum().backward()
    optimizer.step()
    changed = tiny.changed_keys(before, network.state_dict())
    assert changed == {key for key in before if ".adapters.task1." in key} == set(network.trained_state())


def pictures_of(folder: Path, label: int) -> list[dict[str, Any]]:
    rng, items = np.random.default_rng(label), []
    for number in range(2):
        path = folder / f"{label}-{number}.png"
        Image.fromarray(rng.integers(0, 255, (SIDE, SIDE, 3), np.uint8)).save(path)
        items.append({"image": str(path), "label": label})
    return items


@pytest.fixture(scope="module")
def learnt(tiny: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Two tasks' adapters, with all statistics measured of each while it was the newest."""
    folder, statistics = tmp_path_factory.mktemp("pictures"), AdapterStatistics()
    network = ContinualNet(VIT, adapter=Bottleneck(8, 0.5), image_size=SIDE)
    features = FeatureExtractor(network, tiny.transform(), 2)
    handler = AdapterStatisticsHandler(network, statistics, features, ["samples", "fisher", "gram"])
    for number, task in enumerate(TASKS):
        network.grow(len(task["classes"]))
        network.add_adapters()
        network.keep_start()
        network.add_auxiliary(len(task["classes"]) + 1)
        network.train_only(["adapter", "auxiliary"])
        tiny.randomise(network.branch(f"task{number}"), number)
        with torch.no_grad():
            for parameter in network.branch(f"task{number}").parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape))
        handler(SimpleNamespace(current_task=SimpleNamespace(train=pictures_of(folder, number))))  # type: ignore[arg-type]
    return SimpleNamespace(network=network.eval(), statistics=statistics)


@pytest.mark.parametrize("row", ROWS)
def test_every_row_merges_it(row: str, learnt: SimpleNamespace, pictures: Tensor) -> None:
    network = copy.deepcopy(learnt.network)
    merging = Merging(ROWS[row](), base="start", statistics=learnt.statistics)
    states = [network.branch_state(f"task{number}") for number in range(2)]
    expected = merge(states, merging, network.branch_state("start"))
    network.merge(merging)
    merged = network.branch_state("merged")
    assert merged.keys() == states[0].keys()
    for key, value in merged.items():
        assert torch.equal(value, expected[key])
        assert value.isfinite().all()
        assert not torch.equal(value, states[1][key])
    assert network(pictures).features.isfinite().all()


def test_least_squares_beats_the_mean_on_what_the_layers_said(learnt: SimpleNamespace) -> None:
    states = [learnt.network.branch_state(f"task{number}") for number in range(2)]
    regmean, mean = merge(states, Merging(RegMean(), statistics=learnt.statistics)), merge(states)
    for key in (key for key in mean if key.endswith("weight")):
        assert error(regmean[key], key, learnt) < error(mean[key], key, learnt)


def error(weight: Tensor, key: str, learnt: SimpleNamespace) -> float:
    """The squared difference to each task's own outputs on its own inputs, from their Gram matrices."""
    total, inputs = 0.0, weight.shape[1]
    for number, task in enumerate(learnt.statistics.tasks):
        difference = weight - learnt.network.branch_state(f"task{number}")[key]
        total += float((difference @ task["gram"][key].view(inputs, inputs) @ difference.T).trace())
    return total


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "swin_t", "timm:test_resnet"])
def test_where_there_is_no_transformers_block_it_is_refused(name: str) -> None:
    message = f"adapters 'bottleneck' stand beside the MLP of .*, and .* of {name} is none: list part 'lora', or leave"
    with pytest.raises(UserError, match=message), torch.device("meta"):
        AdaptedBackbone(name, Bottleneck(), image_size=64)


@pytest.mark.parametrize("width", [0, -3])
def test_a_width_below_one_is_refused(width: int) -> None:
    with pytest.raises(UserError, match=f"a bottleneck cannot have width {width}: use at least 1 .key 'adapter#width'"):
        Bottleneck(width)


def test_it_does_not_fold_into_the_backbone(tiny: SimpleNamespace) -> None:
    with pytest.raises(UserError, match="adapter bottleneck does not fold into the backbone, since it is not linear"):
        network_of(tiny, tasks=1).backbone.folded()


def test_the_unloaded_network_gives_the_same_logits(tiny: SimpleNamespace, pictures: Tensor) -> None:
    network = network_of(tiny)
    network.merge()
    with torch.no_grad():
        assert torch.equal(network.merge_and_unload(TASKS)(pictures), network(pictures).logits)
