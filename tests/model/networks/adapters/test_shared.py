"""One adapter goes on learning in every task, beside a small one a task, which alone is merged."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from scripts.federation.network import network_record
from scripts.model.networks import (
    L2P,
    AdaptedBackbone,
    AttendedConvolutions,
    Bottleneck,
    ContinualNet,
    Convolutions,
    LowRank,
    NetworkState,
    SharedAdapters,
    WholeBackbones,
    make_adapter,
    merge,
)
from scripts.model.networks.adapters import Adapter
from scripts.utils.errors import UserError

CONVOLUTIONS = SharedAdapters(Convolutions(), Convolutions(0.25))
LOW_RANK = SharedAdapters(LowRank(4), LowRank(2))
TASKS = [{"name": "first", "classes": ["a", "b"]}, {"name": "second", "classes": ["c", "d"]}]


def blocks_of(network: ContinualNet) -> list[nn.Module]:
    return list(network.adapted().blocks.values())


@pytest.mark.parametrize("adapter", [CONVOLUTIONS, SharedAdapters(AttendedConvolutions(), Convolutions(0.25))])
def test_a_map_passes_the_shared_one_and_then_its_own(adapter: Adapter, tiny: SimpleNamespace, images: Tensor) -> None:
    network = tiny.network(sizes=[2, 2], adapter=adapter)
    network.merge()
    network.eval()
    with torch.no_grad():
        x = network.backbone.stem(images)
        for block in blocks_of(network):
            x = block.block(block.adapters["merged"](block.adapters["shared"](x)))[-1]
        expected = network.backbone.pool(x)
        torch.testing.assert_close(network(images).features[:, 0], expected)


def test_the_plain_branch_goes_past_it(tiny: SimpleNamespace, images: Tensor) -> None:
    network = tiny.network(sizes=[2], adapter=CONVOLUTIONS).eval()
    without = tiny.network(sizes=[2], adapter=None).eval()
    own = network.state_dict()
    without.load_state_dict({key: own[key] for key in without.state_dict()})
    with torch.no_grad(), network.through(["backbone"]):
        assert torch.equal(network(images).features, without(images).features)


def test_beside_a_transformers_mlp_both_read_the_same(tiny: SimpleNamespace) -> None:
    adapter = SharedAdapters(Bottleneck(8, 0.5), Bottleneck(2, 0.25))
    backbone = AdaptedBackbone("timm:test_vit", adapter, ["blocks.2"], ["task0"], image_size=32)
    tiny.randomise(backbone)
    (block,) = backbone.blocks.values()
    x = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        attended = block.block[0].attend(x)
        both = block.adapters["shared"](attended) + block.adapters["task0"](attended)
        expected = block.after_first(block.block[0].transform(attended) + both)
        torch.testing.assert_close(block(x, "task0")[-1], expected)


def test_low_rank_changes_are_added_and_folded_away(tiny: SimpleNamespace, images: Tensor) -> None:
    network = tiny.network(sizes=[2, 2], adapter=LOW_RANK)
    network.merge()
    network.eval()
    plain = network.merge_and_unload(TASKS).eval()
    assert not [key for key in plain.state_dict() if "adapters" in key]
    with torch.no_grad():
        torch.testing.assert_close(plain(images), network(images).logits)
    block = blocks_of(network)[0]
    name, key = next((name, key) for key, name in block.layers.items())
    changes = block.adapters["shared"][key]() + block.adapters["merged"][key]()
    assert changes.abs().sum() > 0
    torch.testing.assert_close(block.folded("merged")[name], block.block.get_parameter(name) + changes)


@pytest.mark.parametrize("adapter", [CONVOLUTIONS, LOW_RANK], ids=["convolutions", "low rank"])
def test_it_learns_in_every_task_and_earlier_own_ones_do_not(
    adapter: Adapter, tiny: SimpleNamespace, images: Tensor
) -> None:
    network = tiny.network(sizes=[2, 2], adapter=adapter)
    before = tiny.copy_of(network.state_dict())
    network.train_only(["adapter"])
    network.train()
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    network(images).features.square().sum().backward()
    optimizer.step()
    changed = tiny.changed_keys(before, network.state_dict())
    assert changed <= set(network.trained_state())
    assert {key.split("adapters.")[1].split(".")[0] for key in changed} == {"shared", "task1"}


def test_the_own_ones_alone_are_merged_and_counted(tiny: SimpleNamespace) -> None:
    network = tiny.network(sizes=[2, 2], adapter=CONVOLUTIONS)
    before = tiny.copy_of(network.state_dict())
    own = [network.branch_state(name) for name in ("task0", "task1")]
    assert network.adapter_branches() == list(network.backbone.added()) == ["task0", "task1"]
    assert network.kept_bytes() == sum(tensor.nbytes for state in own for tensor in state.values())
    network.merge()
    assert all(torch.equal(value, merge(own)[key]) for key, value in network.branch_state("merged").items())
    shared = {key: value for key, value in network.state_dict().items() if ".adapters.shared." in key}
    assert shared and all(torch.equal(value, before[key]) for key, value in shared.items())


def test_it_is_in_the_checkpoint(tiny: SimpleNamespace, images: Tensor) -> None:
    network, rebuilt = tiny.network(sizes=[2, 2], adapter=CONVOLUTIONS), tiny.network(adapter=CONVOLUTIONS, seed=7)
    network.merge()
    NetworkState(rebuilt).load_state_dict(copy.deepcopy(NetworkState(network).state_dict()))
    assert not tiny.changed_keys(network.state_dict(), rebuilt.state_dict())
    assert rebuilt.structure() == network.structure()
    with torch.no_grad():
        assert torch.equal(rebuilt.eval()(images).logits, network.eval()(images).logits)


def test_pretrained_weights_go_past_it(tiny: SimpleNamespace, tmp_path: Path) -> None:
    network = tiny.network(adapter=CONVOLUTIONS)
    file = tmp_path / "weights.pth"
    torch.save(tiny.network(seed=5).backbone.published_state(), file)
    shared = tiny.copy_of(network.backbone.learning("")[0].state_dict())
    network.backbone.load_pretrained(str(file))
    assert not tiny.changed_keys(network.backbone.published_state(), torch.load(file))
    assert not tiny.changed_keys(shared, network.backbone.learning("")[0].state_dict())


def test_the_unloaded_network_compiles_and_gives_the_same_logits(tiny: SimpleNamespace, images: Tensor) -> None:
    network = tiny.network(sizes=[2, 2], adapter=CONVOLUTIONS)
    network.merge()
    network.eval()
    with torch.no_grad():
        plain = network.merge_and_unload(TASKS)
        assert torch.equal(plain(images), network(images).logits)
        torch.testing.assert_close(torch.jit.script(plain)(images), plain(images))


@pytest.mark.parametrize("kind", [L2P(), WholeBackbones(), CONVOLUTIONS])
def test_what_all_tasks_use_already_is_not_shared(kind: Adapter) -> None:
    for pair in ((kind, Convolutions()), (Convolutions(), kind)):
        with pytest.raises(UserError, match=f"adapters '{kind.kind}' of all tasks are in use already"):
            SharedAdapters(*pair)


def test_kinds_of_different_places_are_refused() -> None:
    with pytest.raises(UserError, match="adapters 'conv' and 'lora' do not stand in one place"):
        AdaptedBackbone("mobilenet_v2", SharedAdapters(Convolutions(), LowRank()))


def test_what_either_kind_refuses_is_refused(tiny: SimpleNamespace) -> None:
    with pytest.raises(UserError, match="image_size 16 is too small for resnet18"):
        AdaptedBackbone("resnet18", CONVOLUTIONS, image_size=16)
    with pytest.raises(UserError, match="adapters 'lora' cannot start from a running mean"):
        tiny.network(adapter=LOW_RANK, adapter_start="running_mean")
    with pytest.raises(UserError, match="adapter shared does not fold into the backbone"):
        tiny.network(sizes=[2], adapter=CONVOLUTIONS).backbone.folded()


def test_sites_do_not_contribute_sums_over_features_of_their_own(tiny: SimpleNamespace) -> None:
    with pytest.raises(UserError, match="adapters 'shared' have a part that is never merged, so that each site"):
        network_record(tiny.network(sizes=[2], adapter=CONVOLUTIONS), seed=1)


def test_a_record_within_a_record_makes_the_same() -> None:
    assert make_adapter(LOW_RANK.record()) == LOW_RANK
