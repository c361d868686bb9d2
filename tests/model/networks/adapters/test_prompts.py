"""Prompts are chosen by the image alone, as published; what a task learnt of them stays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from scripts.deploy.export.exporter import load_torchscript, onnx_model, onnx_scores, torchscript
from scripts.learning.losses import new_classes_cross_entropy
from scripts.model.networks import L2P, CodaPrompt, ContinualNet, DualPrompt, PromptedBackbone, StemMapReader
from scripts.model.networks.adapters import PromptPool, Prompts
from scripts.model.networks.backbones import TransformerBlock, find_backbone
from scripts.model.networks.cost import flops_per_image
from scripts.utils.errors import UserError

VIT = "timm:test_vit"  # six blocks of 64 numbers
SIDE = 32
SIZES = (2, 1, 2)
TASKS = [{"name": str(size), "classes": [f"{number}{n}" for n in range(size)]} for number, size in enumerate(SIZES)]
KINDS: dict[str, Prompts] = {
    "l2p": L2P(pool_size=6, chosen=2, length=3),
    "l2p_growing": L2P(pool_size=6, added=2, chosen=2, length=3),
    "l2p_prefix": L2P(pool_size=6, chosen=2, length=3, prefix=True, blocks=("blocks.0", "blocks.2")),
    "dualprompt": DualPrompt(general_length=2, length=3),
    "coda_prompt": CodaPrompt(components=4, length=2, orthogonality=0.1),
    "l2p_one_pass": L2P(pool_size=6, chosen=2, length=3, query="blocks.1"),
    "dualprompt_one_pass": DualPrompt(general_length=2, length=3, query="blocks.0"),
    "coda_prompt_one_pass": CodaPrompt(components=4, length=2, query="blocks.0"),
}
each_kind = pytest.mark.parametrize("kind", KINDS)


def images(count: int) -> Tensor:
    return torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(count))


def network_of(adapter: Prompts, sizes: tuple[int, ...] = SIZES, learn: bool = False) -> ContinualNet:
    """A network that has been through some tasks; with ``learn`` each has changed what it trains a little."""
    torch.manual_seed(0)
    network = ContinualNet(VIT, adapter=adapter, image_size=SIDE)
    for size in sizes:
        network.grow(size)
        network.add_adapters()
        network.add_auxiliary(size + 1)
        network.train_only(["adapter", "auxiliary"])
        if learn:
            step(network)
        network.start_head_from_auxiliary()
        network.drop_auxiliary()
    return network.eval()


def step(network: ContinualNet) -> None:
    network.train()
    optimizer = torch.optim.Adam([value for value in network.parameters() if value.requires_grad], 0.01)
    outputs = network(images(6))
    labels = torch.arange(6) % network.classes[-1] + sum(network.classes[:-1])
    (new_classes_cross_entropy(outputs, labels) + sum(outputs.penalties.values())).backward()
    optimizer.step()


def prompted(network: ContinualNet) -> PromptedBackbone:
    assert isinstance(network.backbone, PromptedBackbone)
    return network.backbone


def pool_of(network: ContinualNet) -> PromptPool:
    return prompted(network).prompts


def queries(network: ContinualNet, pictures: Tensor) -> Tensor:
    with torch.no_grad():
        return prompted(network).tokens_and_query(prompted(network).below_adapters(pictures))[1]


# -- a prediction does not depend on its neighbours ------------------------------------------------------------------


@each_kind
def test_one_image_gets_the_class_that_it_gets_among_others(kind: str) -> None:
    network, pictures = network_of(KINDS[kind], learn=True), images(64)
    linear = network.head.linear_layer()
    with torch.no_grad():
        linear.weight.normal_()
        linear.bias.copy_(-linear.weight @ network(pictures).features.mean(0)[0])  # all classes are near to each other
        together = network(pictures).logits
        alone = torch.cat([network(picture[None]).logits for picture in pictures])
    assert torch.equal(together.argmax(1), alone.argmax(1))
    assert len(together.argmax(1).unique()) > 1
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_of_a_majority_each_image_is_told_what_most_of_its_batch_would_be() -> None:
    own = network_of(L2P(pool_size=6, chosen=2, length=3))
    shared = network_of(L2P(pool_size=6, chosen=2, length=3, choice="majority"))
    pictures = images(9)
    with torch.no_grad():
        votes = (own(pictures).extras["prompts"] > 0).sum(0)
        told = shared(pictures).extras["prompts"]
        assert all(torch.equal(row, told[0]) for row in told)
        assert votes[told[0] > 0].min() >= votes[told[0] == 0].max()
        assert any(not torch.equal(shared(picture[None]).extras["prompts"][0], told[0]) for picture in pictures), (
            "the answer depends on who stands beside"
        )


@each_kind
def test_penalties_are_as_strong_in_a_batch_of_any_size(kind: str) -> None:
    network, pictures = network_of(KINDS[kind], learn=True), images(8)
    with torch.no_grad():
        (whole,) = network(pictures).penalties.values()
        (twice,) = network(torch.cat([pictures, pictures])).penalties.values()
        single = [next(iter(network(picture[None]).penalties.values())) for picture in pictures]
    torch.testing.assert_close(twice, whole)
    torch.testing.assert_close(torch.stack(single).mean(), whole)
    assert whole > 0 or kind == "coda_prompt_one_pass"


# -- as published ----------------------------------------------------------------------------------------------------


def test_l2p_takes_the_prompts_of_the_nearest_keys_in_their_order() -> None:
    network, pictures = network_of(KINDS["l2p"]), images(5)
    query, own = queries(network, pictures), pool_of(network).slices["task0"]
    with torch.no_grad():
        (prompts,) = pool_of(network)(query, network.backbone.branches)
        outputs = network(pictures)
    assert prompts.shape == (5, 1, 6, 64)
    for number in range(5):
        cosines = cosine_similarity(query[number], own.get_parameter("keys"), dim=1)
        best = cosines.argsort(descending=True)[:2]
        assert torch.equal(prompts[number, 0], own.get_parameter("prompts")[best, 0, 0].flatten(0, 1))
        assert set(outputs.extras["prompts"][number].nonzero().flatten().tolist()) == set(best.tolist())
    distances = [(1 - cosine_similarity(q, own.get_parameter("keys"), dim=1)).sort().values[:2].sum() for q in query]
    torch.testing.assert_close(outputs.penalties["pull"], torch.stack(distances).mean())


def test_the_head_of_l2p_reads_the_mean_of_the_prompts_tokens() -> None:
    network, pictures = network_of(KINDS["l2p"]), images(2)
    backbone = prompted(network)
    (prompts,) = pool_of(network)(queries(network, pictures), backbone.branches)
    with torch.no_grad():
        x = torch.cat([prompts[:, 0], backbone.stem(pictures)], 1)
        for module in backbone.blocks["blocks_0"].block:
            x = module(x)
        torch.testing.assert_close(network(pictures).features[:, 0], x[:, :6].mean(1))
        torch.testing.assert_close(network(pictures).maps[0], backbone.image_places(x[:, 6:]))


def test_a_pool_grows_by_what_each_later_task_adds() -> None:
    for kind, expected in (("l2p", [6, 0, 0]), ("l2p_growing", [6, 2, 2]), ("coda_prompt", [4] * 3)):
        slices = pool_of(network_of(KINDS[kind])).slices
        assert [len(own.get_parameter("keys")) for own in slices.values()] == expected
    assert len(pool_of(network_of(KINDS["dualprompt"], (2, 2, 2, 2))).slices) == 4


def test_an_expert_starts_from_that_of_the_task_before() -> None:
    network = network_of(KINDS["dualprompt"], learn=True)
    before = pool_of(network).slices["task2"].get_parameter("prompts").clone()
    network.grow(2)
    network.add_adapters()
    new = pool_of(network).slices["task3"]
    assert torch.equal(new.get_parameter("prompts"), before)
    assert not torch.equal(new.get_parameter("keys"), pool_of(network).slices["task2"].get_parameter("keys"))


def test_in_training_the_newest_expert_is_taken_and_in_a_test_that_of_the_nearest_key() -> None:
    network, pictures = network_of(KINDS["dualprompt"]), images(16)
    keys = torch.cat([own.get_parameter("keys") for own in pool_of(network).slices.values()])
    nearest = cosine_similarity(queries(network, pictures)[:, None], keys[None], dim=2).argmax(1)
    assert len(nearest.unique()) > 1
    with torch.no_grad():
        assert torch.equal(network(pictures).extras["prompts"].argmax(1), nearest)
        network.train_only(["adapter"])
        assert network.train()(pictures).extras["prompts"][:, 2].eq(1).all()


def test_experts_and_general_prompts_stand_at_their_own_blocks() -> None:
    adapter = DualPrompt(general_length=2, length=3, general_blocks=("blocks.3",), blocks=("blocks.1", "blocks.4"))
    network = network_of(adapter)
    assert network.backbone.sites == ("blocks.1", "blocks.3", "blocks.4")
    lengths = [prompts.shape[2] for prompts in pool_of(network)(torch.randn(2, 64), network.backbone.branches)]
    assert lengths == [3, 2, 3]


def test_coda_sums_components_by_attention_to_the_query() -> None:
    network = network_of(KINDS["coda_prompt"], learn=True)
    query, slices = torch.randn(3, 64), pool_of(network).slices.values()
    found = pool_of(network)(query, network.backbone.branches)
    for block, prompts in enumerate(found):
        for image in range(3):
            expected = torch.zeros(2, 2, 64)
            for own in slices:
                keys, attention, values = (own.get_parameter(name) for name in ("keys", "attention", "prompts"))
                for number in range(4):
                    seen = query[image] * attention[number, block]
                    weight = cosine_similarity(seen, keys[number, block], dim=0)
                    expected = expected + weight * values[number, block]
            torch.testing.assert_close(prompts[image], expected)


def test_components_are_orthogonal_at_the_start_of_each_task() -> None:
    network = network_of(CodaPrompt(components=10, length=4), (2, 2, 2, 2))
    for own in pool_of(network).slices.values():
        for name in ("keys", "attention", "prompts"):
            vectors = own.get_parameter(name).flatten(2).transpose(0, 1)
            products = vectors @ vectors.transpose(1, 2)
            assert (products - torch.eye(10)).abs().max() < 1e-5


def test_the_penalty_of_components_is_their_distance_from_orthogonal_ones() -> None:
    network = network_of(KINDS["coda_prompt"], learn=True)
    expected = torch.zeros(())
    for name in ("keys", "attention", "prompts"):
        for block in range(5):
            rows = torch.cat([own.get_parameter(name)[:, block].flatten(1) for own in pool_of(network).slices.values()])
            expected = expected + (rows @ rows.T - torch.eye(12)).square().mean()
    torch.testing.assert_close(network(images(2)).penalties["orthogonality"], 0.1 * expected)


@pytest.mark.parametrize("kind", ["coda_prompt", "dualprompt", "coda_prompt_one_pass"])
def test_what_earlier_tasks_learnt_stays_to_the_bit(kind: str, tiny: SimpleNamespace) -> None:
    network = network_of(KINDS[kind], learn=True)
    before = tiny.copy_of(network.state_dict())
    network.grow(2)
    network.add_adapters()
    network.add_auxiliary(3)
    network.train_only(["adapter", "auxiliary"])
    step(network)
    changed = tiny.changed_keys(
        before, {key: network.state_dict()[key] for key in before if not key.startswith("head.")}
    )
    assert {key for key in changed if not key.startswith("head.")} <= {"backbone.prompts.general.prompts"}
    newest = network_of(KINDS[kind], (*SIZES, 2)).state_dict()["backbone.prompts.slices.task3.keys"]
    assert not torch.equal(newest, network.state_dict()["backbone.prompts.slices.task3.keys"])


def test_no_logit_of_an_old_class_is_trained() -> None:
    network = network_of(KINDS["coda_prompt"], learn=True)
    old = network.head.linear_layer().weight[:3].clone()
    network.grow(2)
    network.add_adapters()
    network.add_auxiliary(3)
    network.train_only(["adapter", "auxiliary"])
    step(network)
    network.start_head_from_auxiliary()
    assert torch.equal(network.head.linear_layer().weight[:3], old)
    outputs = network(images(4))
    labels = torch.tensor([5, 6, 5, 6])
    logits = outputs.auxiliary[:, :2]
    expected = torch.nn.functional.cross_entropy(logits, labels - 5)
    torch.testing.assert_close(new_classes_cross_entropy(outputs, labels), expected)


# -- one frozen transformer -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [VIT, "vit_b_32"])
def test_a_prefix_is_further_keys_and_values_of_attention(name: str) -> None:
    torch.manual_seed(0)
    block = next(b.module for b in find_backbone(name).chain(SIDE).blocks if b.name == "blocks.1").eval()
    assert isinstance(block, TransformerBlock)
    state: dict[str, Any] = dict(block.named_parameters())
    timm = name == VIT
    norm = block.norm1 if timm else block.ln_1
    attention: Any = block.attn if timm else block.self_attention
    weight, bias = (
        state[key]
        for key in (
            ("attn.qkv.weight", "attn.qkv.bias")
            if timm
            else ("self_attention.in_proj_weight", "self_attention.in_proj_bias")
        )
    )
    width = weight.shape[1]
    x, keys, values = torch.randn(2, 5, width), torch.randn(2, 3, width), torch.randn(2, 3, width)
    with torch.no_grad():
        q, k, v = (norm(x) @ weight.T + bias).split(width, 2)
        k, v = torch.cat([keys, k], 1), torch.cat([values, v], 1)
        own = width // attention.num_heads
        heads = []
        for start in range(0, width, own):
            part = slice(start, start + own)
            scores = q[..., part] @ k[..., part].transpose(1, 2) / own**0.5
            heads.append(scores.softmax(2) @ v[..., part])
        project = attention.proj if timm else attention.out_proj
        said = project(torch.cat(heads, 2))
        expected = x + (block.ls1(said) if timm else said)
        torch.testing.assert_close(block.attend_with(x, keys, values), expected, rtol=1e-4, atol=1e-5)
        nothing = torch.empty(2, 0, width)
        torch.testing.assert_close(block.attend_with(x, nothing, nothing), block.attend(x), rtol=1e-4, atol=1e-5)


@each_kind
def test_the_query_is_what_the_transformer_says_without_prompts(kind: str) -> None:
    network, pictures = network_of(KINDS[kind], learn=True), images(3)
    query = queries(network, pictures)
    with torch.no_grad(), network.through(["backbone"]):
        plain = network(pictures).features[:, 0]
    if kind.endswith("one_pass"):
        assert query.mean(1).abs().max() < 1e-5, "standardised"
    else:
        assert torch.equal(query, plain)
    assert not torch.allclose(network(pictures).features[:, 0], plain)


@each_kind
def test_on_what_stands_before_the_prompts_the_same_losses_are_reached(kind: str) -> None:
    network, pictures = network_of(KINDS[kind], SIZES[:2]), images(4)
    network.grow(2)
    network.add_adapters()
    network.add_auxiliary(3)
    network.train_only(["adapter", "auxiliary"])
    network.train()
    with torch.no_grad():
        kept = torch.cat([network.backbone.below_adapters(picture[None]) for picture in pictures])
    labels = torch.tensor([3, 4, 3, 4])
    losses, slopes = [], []
    for outputs in (network(pictures), StemMapReader(network)(kept)):
        network.zero_grad()
        loss = new_classes_cross_entropy(outputs, labels) + sum(outputs.penalties.values())
        loss.backward()
        losses.append(loss.detach())
        slopes.append(pool_of(network).learning("task2")[0].get_parameter("keys").grad)
    torch.testing.assert_close(losses[0], losses[1])
    if slopes[0] is not None:
        torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-3, atol=1e-6)


@each_kind
def test_prompts_alone_learn(kind: str, tiny: SimpleNamespace) -> None:
    network = network_of(KINDS[kind], SIZES[:1])
    network.add_auxiliary(3)
    network.train_only(["adapter", "auxiliary"])
    before = tiny.copy_of(network.state_dict())
    step(network)
    changed = tiny.changed_keys(before, network.state_dict())
    assert changed and all(key.startswith(("backbone.prompts.", "auxiliary.")) for key in changed)
    assert changed <= set(network.trained_state())


@each_kind
def test_the_unloaded_network_and_one_that_grew_anew_say_the_same(kind: str) -> None:
    network, pictures = network_of(KINDS[kind], learn=True), images(3)
    grown = ContinualNet(VIT, adapter=KINDS[kind], image_size=SIDE)
    grown.load_grown(network.structure(), network.state_dict())
    with torch.no_grad():
        assert torch.equal(network.merge_and_unload(TASKS)(pictures), network(pictures).logits)
        assert torch.equal(grown.eval()(pictures).logits, network(pictures).logits)
    added = {"coda_prompt": 3 * 4 * 5 * (64 + 64 + 4 * 64), "dualprompt": 3 * (64 + 3 * 6 * 64) + 2 * 4 * 64}
    if kind in added:
        assert network.kept_bytes() == 4 * added[kind]


@pytest.mark.parametrize("kind", ["l2p", "dualprompt", "coda_prompt"])
def test_files_of_other_runtimes_choose_by_themselves(kind: str) -> None:
    network, pictures = network_of(KINDS[kind], learn=True), images(4)
    plain = network.merge_and_unload(TASKS)
    with torch.no_grad():
        expected = plain(images(7))
    for scores in (
        load_torchscript(torchscript(plain, pictures)),
        onnx_scores(onnx_model(plain, pictures).SerializeToString()),
    ):
        torch.testing.assert_close(scores(images(7)).detach(), expected, rtol=1e-4, atol=1e-4)


@each_kind
def test_each_patch_is_matched_with_each_prompt(kind: str) -> None:
    network, pictures = network_of(KINDS[kind]), images(2)
    found = prompted(network).matches(pictures)
    assert found.shape == (2, network(pictures).extras["prompts"].shape[1], 2, 2)
    assert found.abs().max() <= 1 + 1e-5


def test_an_early_query_costs_half() -> None:
    twice, once = (network_of(KINDS[kind]) for kind in ("coda_prompt", "coda_prompt_one_pass"))
    assert flops_per_image(once, SIDE) == pytest.approx(flops_per_image(twice, SIDE) / 2, rel=0.1)


# -- what cannot be ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "adapter", "message"),
    [
        ("resnet18", L2P(), "prompts need a plain vision transformer of torchvision or timm .*, and resnet18 is none"),
        ("swin_t", CodaPrompt(), "prompts need a plain vision transformer .*, and swin_t is none"),
        ("timm:test_resnet", DualPrompt(), "prompts need .*, and timm:test_resnet is none"),
        ("vit_3d", CodaPrompt(), "prompts need .*, and blocks.0 of vit_3d is none"),
        (VIT, CodaPrompt(blocks=("blocks.9",)), "has no block 'blocks.9' for prompts: choose among blocks.0, .*5"),
        (VIT, CodaPrompt(query="blocks.5"), "no block 'blocks.5' with one behind it: give last or one of blocks.0"),
        (VIT, CodaPrompt(query="blocks.1", blocks=("blocks.3",)), "prompts must start at blocks.2, behind the query"),
        (VIT, CodaPrompt(query="blocks.1", blocks=("blocks.0",)), "has no block 'blocks.0' for prompts: choose among"),
        (VIT, CodaPrompt(components=65), "65 components cannot be orthogonal in 64 numbers"),
        (VIT, L2P(blocks=("blocks.0", "blocks.1")), "tokens stand before one block, not 2: give one"),
        (VIT, DualPrompt(blocks=("blocks.0",)), "general prompts and experts stand at blocks of their own"),
    ],
)
def test_where_prompts_cannot_stand_they_are_refused(name: str, adapter: Prompts, message: str) -> None:
    with pytest.raises(UserError, match=message), torch.device("meta"):
        ContinualNet(name, adapter=adapter, image_size=SIDE)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: L2P(pool_size=3, chosen=4), "a pool of 3 prompts is smaller than the 4 that are chosen"),
        (lambda: L2P(length=0), "prompts cannot have length 0: use at least 1 .key 'adapter#length'"),
        (lambda: L2P(choice="most"), "unknown choice 'most' of prompts: give image or majority"),
        (lambda: DualPrompt(general_length=0), "prompts cannot have general_length 0"),
        (lambda: CodaPrompt(components=0), "prompts cannot have components 0"),
        (lambda: ContinualNet(VIT, "levels", KINDS["l2p"], image_size=SIDE), "leave part 'levels' out"),
        (lambda: ContinualNet(VIT, adapter=KINDS["l2p"], sites=["blocks.2"], image_size=SIDE), "'adapter#blocks'"),
        (
            lambda: ContinualNet(VIT, adapter=KINDS["l2p"], adapter_start="running_mean", image_size=SIDE),
            "prompts 'l2p' start as their method says",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()


def test_on_real_weights_images_choose_different_prompts(test_data: Path) -> None:
    file = test_data / "weights/deit_tiny_patch16_224_in1k_fp16.pth"
    network = ContinualNet(
        "timm:deit_tiny_patch16_224",
        adapter=L2P(),
        weights=str(file),
        weights_sha256="efbfb9ec6f199d62",
        image_size=64,
    )
    network.grow(2)
    network.add_adapters()
    pictures = torch.stack([torch.zeros(3, 64, 64), torch.eye(64).expand(3, -1, -1), torch.randn(3, 64, 64)])
    with torch.no_grad():
        told = network.eval()(pictures).extras["prompts"]
    assert len(told.unique(dim=0)) > 1
