"""What an adapter adds is weighed by channels and places; it is merged in every way and exported."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from scripts.learning.features import FeatureExtractor
from scripts.learning.handlers import AdapterStatisticsHandler
from scripts.model.networks import (
    ROWS,
    AdaptedBackbone,
    AdapterStatistics,
    AttendedConvolutions,
    Convolutions,
    Merging,
    merge,
)
from scripts.model.networks.adapters import AttentionAdapter
from scripts.utils.errors import UserError

TASKS = [{"name": "first", "classes": ["a", "b"]}, {"name": "second", "classes": ["c", "d"]}]


@pytest.mark.parametrize(("channels", "dims", "places"), [(8, 2, 100), (64, 2, 100), (64, 3, 688)])
def test_attention_has_few_parameters(channels: int, dims: int, places: int) -> None:
    count = sum(parameter.numel() for parameter in AttentionAdapter(channels, channels, dims).parameters())
    own = 2 * 3**dims * channels**2 + 6 * channels + 1
    assert count == own + 2 * channels * max(1, channels // 16) + places


@pytest.mark.parametrize("shape", [(2, 8, 3, 3), (1, 32, 7, 4), (2, 8, 3, 3, 3)])
@pytest.mark.parametrize("training", [True, False])
def test_every_side_is_kept(shape: tuple[int, ...], training: bool) -> None:
    assert AttentionAdapter(shape[1], 4, len(shape) - 2).train(training)(torch.randn(shape)).shape == shape


@pytest.mark.parametrize("dims", [2, 3])
def test_what_it_adds_is_weighed(dims: int) -> None:
    torch.manual_seed(0)
    adapter, x = AttentionAdapter(4, 4, dims).eval(), torch.randn(2, 4, *[5] * dims)
    *layers, attention = adapter.layers
    added = x
    for layer in layers:
        added = layer(added)
    assert torch.equal(adapter(x), x + 0.02 * attention(added))
    assert ((adapter(x) - x).abs() <= 0.02 * added + 1e-6).all(), "weights are at most 1"


def test_a_new_adapter_is_nearly_the_identity_yet_learns() -> None:
    torch.manual_seed(0)
    adapter, x = AttentionAdapter(16, 16), torch.randn(4, 16, 9, 9)
    change = adapter(x) - x
    assert 0 < change.norm() < 0.03 * x.norm()
    adapter(x).square().sum().backward()
    weights = [parameter for parameter in adapter.parameters() if parameter.dim() != 1]
    assert all(parameter.grad is not None and bool(parameter.grad.abs().sum() > 0) for parameter in weights)


@pytest.fixture(scope="module")
def learnt(tiny: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Two tasks' adapters, with all statistics measured of each while it was the newest."""
    tasks = tiny.tasks(tmp_path_factory.mktemp("pictures"), [2, 2], train=2)
    network, statistics = tiny.network(adapter=AttendedConvolutions()), AdapterStatistics()
    features = FeatureExtractor(network, tiny.transform(), 2)
    handler = AdapterStatisticsHandler(network, statistics, features, ["samples", "fisher", "gram"])
    for number, task in enumerate(tasks):
        network.grow(len(task.classes))
        network.add_adapters()
        network.keep_start()
        network.add_auxiliary(len(task.classes) + 1)
        network.train_only(["adapter", "auxiliary"])
        tiny.randomise(network.branch(f"task{number}"), number)
        with torch.no_grad():
            for parameter in network.branch(f"task{number}").parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape))
        handler(SimpleNamespace(current_task=task))  # type: ignore[arg-type]
    return SimpleNamespace(network=network.eval(), statistics=statistics)


@pytest.mark.parametrize("row", ROWS)
def test_every_row_merges_it(row: str, learnt: SimpleNamespace, images: Tensor) -> None:
    network = copy.deepcopy(learnt.network)
    merging = Merging(ROWS[row](), base="start", batchnorm="pooled", statistics=learnt.statistics)
    states = [network.branch_state(f"task{number}") for number in range(2)]
    expected = merge(states, merging, network.branch_state("start"))
    network.merge(merging)
    merged = network.eval().branch_state("merged")
    assert [key for key in merged if "layers.6.shared.0.weight" in key]
    assert all(torch.equal(value, expected[key]) and value.isfinite().all() for key, value in merged.items())
    assert network(images).features.isfinite().all()


def test_the_unloaded_network_compiles_and_gives_the_same_logits(learnt: SimpleNamespace, images: Tensor) -> None:
    network = copy.deepcopy(learnt.network)
    network.merge()
    network.eval()
    with torch.no_grad():
        plain = network.merge_and_unload(TASKS)
        assert torch.equal(plain(images), network(images).logits)
        torch.testing.assert_close(torch.jit.script(plain)(images), plain(images))


def test_it_does_not_fold_into_the_backbone(learnt: SimpleNamespace) -> None:
    with pytest.raises(UserError, match="adapter attention does not fold into the backbone, since it is not linear"):
        learnt.network.backbone.folded()


def test_where_maps_are_not_a_convolutional_networks_it_is_refused() -> None:
    message = "adapters 'attention' stand before a convolutional network's blocks, and vit_b_32 is none: list part"
    with pytest.raises(UserError, match=message), torch.device("meta"):
        AdaptedBackbone("vit_b_32", AttendedConvolutions(), image_size=32)


def test_volumes_pass_it_too(tiny: SimpleNamespace) -> None:
    backbone = AdaptedBackbone("resnet10_3d", AttendedConvolutions(), ["layer1"], ["task0"], image_size=17)
    tiny.randomise(backbone)
    with torch.no_grad():
        volume = torch.randn(2, 1, 17, 17, 17)
        features = backbone.eval()(volume)
        torch.testing.assert_close(torch.jit.script(backbone)(volume), features)
    assert features.shape == (2, 1, backbone.width)


def test_it_is_no_adapter_without_attention() -> None:
    assert AttendedConvolutions() != Convolutions()
