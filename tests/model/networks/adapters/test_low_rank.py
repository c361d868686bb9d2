"""Low-rank adapters are linear beside each layer: their products average, and they fold into the backbone."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from scripts.model.networks import AdaptedBackbone, BySamples, Classifier, ContinualNet, LowRank, Merging
from scripts.model.networks.adapters import LowRankBlock, LowRankChange
from scripts.model.networks.backbones import Segment, black_image
from scripts.model.networks.cost import flops_per_image
from scripts.utils.errors import UserError

TASKS = [{"name": "first", "classes": ["a", "b"]}, {"name": "second", "classes": ["c"]}]
SCALE = 0.25
SIDE = 32
# one of each way to lay out maps, and to have queries, keys and values; of large ones the last blocks are adapted
EXPORTED: list[tuple[str, str, list[str] | None]] = [
    ("mobilenet_v2", "unified", None),
    ("mobilenet_v2", "levels", None),
    ("timm:test_vit", "unified", None),
    ("timm:test_vit", "levels", None),
    ("timm:test_convnext", "levels", None),
    ("resnet10_3d", "unified", ["layer2", "layer4"]),
    ("swin_t", "unified", ["features.7"]),
    ("vit_b_32", "unified", ["blocks.10"]),
]
LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "3 x 3": (nn.Conv2d(6, 8, 3, stride=2, padding=1), (2, 6, 9, 7)),
    "1 x 1": (nn.Conv2d(6, 8, 1, bias=False), (2, 6, 5, 5)),
    "depthwise": (nn.Conv2d(6, 6, 3, padding=1, groups=6), (2, 6, 9, 7)),
    "in groups": (nn.Conv2d(6, 8, 3, stride=2, padding=1, groups=2), (2, 6, 9, 7)),
    "dilated": (nn.Conv2d(6, 8, (3, 1), dilation=2, padding=(2, 0)), (2, 6, 9, 7)),
    "volumes": (nn.Conv3d(4, 5, 3, stride=(2, 1, 1), padding=1), (2, 4, 5, 6, 7)),
    "linear": (nn.Linear(6, 8), (2, 3, 6)),
}


@pytest.fixture(params=LAYERS)
def layer(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor]:
    module, shape = LAYERS[request.param]
    return module, torch.randn(shape, generator=torch.Generator().manual_seed(0))


def random_change(module: Any, seed: int, rank: int = 3) -> LowRankChange:
    torch.manual_seed(seed)
    change = LowRankChange(module.weight.detach(), rank, SCALE)
    nn.init.normal_(change.b)
    return change


def beside(module: Any, change: LowRankChange, x: Tensor) -> Tensor:
    """``scale * B(A(x))``, B and A layers of their own; the groups of a convolution share A."""
    a, b = change.a.detach(), change.b.detach()
    if isinstance(module, nn.Linear):
        return SCALE * nn.functional.linear(nn.functional.linear(x, a), b)
    convolution = nn.functional.conv2d if x.dim() == 4 else nn.functional.conv3d
    groups = x.unflatten(1, (module.groups, -1)).flatten(0, 1)
    kernels = a.view(-1, *module.weight.shape[1:])
    down = convolution(groups, kernels, None, module.stride, module.padding, module.dilation)
    b = b.unflatten(0, (module.groups, -1))
    return SCALE * torch.einsum("ngr...,gor->ngo...", down.unflatten(0, (len(x), -1)), b).flatten(1, 2)


def with_change(module: nn.Module, change: Tensor, x: Tensor) -> Tensor:
    parameters = {name: parameter.detach() for name, parameter in module.named_parameters()}
    return torch.func.functional_call(module, {**parameters, "weight": parameters["weight"] + change.detach()}, (x,))


def network_of(tiny: SimpleNamespace, backbone: str = "mobilenet_v2", **arguments: Any) -> ContinualNet:
    """Two tasks' random adapters, merged, in a backbone whose statistics are random too."""
    network = ContinualNet(backbone, adapter=LowRank(8, SCALE), image_size=SIDE, **arguments)
    for task in TASKS:
        network.grow(len(task["classes"]))
        network.add_adapters()
    tiny.randomise(network)
    network.merge()
    return network.eval()


def image_of(network: nn.Module) -> Tensor:
    side = SIDE if network.backbone.spatial_dims == 2 else 9
    return torch.rand(black_image(network, side).shape, generator=torch.Generator().manual_seed(0))


def test_a_changed_weight_is_the_layer_with_its_adapter_beside_it(layer: tuple[nn.Module, Tensor]) -> None:
    module, x = layer
    change = random_change(module, 1)
    with torch.no_grad():
        expected = module(x) + beside(module, change, x)
        torch.testing.assert_close(with_change(module, change(), x), expected, rtol=1e-5, atol=1e-5)
        assert not torch.allclose(module(x), expected, atol=1e-2)


def test_the_average_of_products_is_the_average_of_the_adapters_outputs(layer: tuple[nn.Module, Tensor]) -> None:
    module, x = layer
    changes = [random_change(module, seed) for seed in (1, 2, 3)]
    block = LowRankBlock(nn.Sequential(module), 3, SCALE)
    block.adapters.update({str(number): nn.ModuleDict({"0": change}) for number, change in enumerate(changes)})
    states = [block.mergeable(str(number)) for number in range(3)]
    mean = torch.stack([state["0.change"] for state in states]).mean(0)
    with torch.no_grad():
        expected = module(x) + torch.stack([beside(module, change, x) for change in changes]).mean(0)
        torch.testing.assert_close(with_change(module, mean, x), expected, rtol=1e-5, atol=1e-5)
    factors = SCALE * sum(change.b for change in changes) @ sum(change.a for change in changes) / 9
    assert not torch.allclose(mean, factors.view(mean.shape), atol=1e-2), "the factors' mean is another change"


def test_attention_has_changes_of_queries_keys_and_values_together() -> None:
    torch.manual_seed(0)
    attention, x = nn.MultiheadAttention(8, 2, batch_first=True).eval(), torch.randn(2, 5, 8)

    class Attend(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = attention

        def forward(self, x: Tensor) -> Tensor:
            return self.attention(x, x, x, need_weights=False)[0]

    block = LowRankBlock(Segment(Attend()), 3, SCALE)
    assert set(block.layers.values()) == {"0.attention.in_proj_weight", "0.attention.out_proj.weight"}
    block.adapters["task0"] = block.new("task0")
    for change in block.adapters["task0"].values():
        nn.init.normal_(change.b)
    changed = copy.deepcopy(attention)
    changes = block.changes("task0")
    with torch.no_grad():
        changed.in_proj_weight += changes["0_attention_in_proj_weight"]
        changed.out_proj.weight += changes["0_attention_out_proj"]
        expected = changed(x, x, x)[0]
        torch.testing.assert_close(block(x, "task0")[0], expected, rtol=1e-5, atol=1e-5)
        assert not torch.allclose(block(x, "backbone")[0], expected, atol=1e-2)
    assert torch.linalg.matrix_rank(changes["0_attention_in_proj_weight"].detach()) == 3


@pytest.mark.parametrize("backbone", ["mobilenet_v2", "resnet10_3d", "timm:test_vit"])
def test_the_merged_network_is_the_backbone_with_the_mean_of_the_adapters_beside_each_layer(
    backbone: str, tiny: SimpleNamespace
) -> None:
    network = network_of(tiny, backbone).double()
    network.merge()
    image = image_of(network).double()
    with torch.no_grad():
        merged = network(image).features
        hooks = []
        for block in network.backbone.blocks.values():
            for key, name in block.layers.items():
                changes = [block.adapters[task][key] for task in ("task0", "task1")]

                def add(module: nn.Module, x: Any, y: Tensor, changes: Any = changes) -> Tensor:
                    return y + sum(beside(module, change, x[0]) for change in changes) / 2

                layer = block.block.get_submodule(name.removesuffix(".weight"))
                hooks.append(layer.register_forward_hook(add))
        with network.through(["backbone"]):
            expected = network(image).features
    assert len(hooks) > 8
    torch.testing.assert_close(merged, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))


@pytest.mark.parametrize(("backbone", "head", "sites"), EXPORTED)
def test_the_exported_network_is_the_plain_backbone_with_the_same_output(
    backbone: str, head: str, sites: list[str] | None, tiny: SimpleNamespace
) -> None:
    network = network_of(tiny, backbone, head=head, sites=sites)
    exported = network.merge_and_unload(TASKS)
    with torch.device("meta"):
        plain = Classifier(backbone, head, TASKS, sites=sites, image_size=SIDE)
    assert network.description() == {
        "backbone": backbone,
        "head": head,
        "adapter": None,
        "branches": ["backbone"],
        "sites": list(plain.backbone.sites),
        "levels": list(plain.backbone.levels) or "every",
    }
    assert exported.state_dict().keys() == plain.state_dict().keys()
    image = image_of(network)
    with torch.no_grad():
        expected = network(image).logits
        assert float((exported(image) - expected).abs().max()) <= 1e-5 * float(expected.abs().max())
        with network.through(["backbone"]):
            assert not torch.allclose(network(image).logits, expected, rtol=1e-2)
    assert flops_per_image(exported.to("meta"), SIDE) == flops_per_image(plain, SIDE)


def test_a_new_adapter_changes_nothing_and_every_product_learns() -> None:
    network = ContinualNet("mobilenet_v2", adapter=LowRank(), image_size=SIDE)
    network.grow(2)
    network.eval()
    image = image_of(network)
    before = network(image).features
    network.add_adapters()
    network.train_only(["adapter"])
    network.train()
    after = network(image).features
    assert torch.equal(after, before), "statistics of BatchNorm are frozen"
    after.square().sum().backward()
    changes = [change for block in network.backbone.blocks.values() for change in block.adapters["task0"].values()]
    assert all(bool(change.b.grad.abs().sum() > 0) for change in changes)
    assert {name for name, p in network.named_parameters() if p.grad is not None} == set(network.trained_state())


def test_training_and_folding_leave_the_backbone_bit_equal(tiny: SimpleNamespace) -> None:
    network = network_of(tiny)
    before = tiny.copy_of(network.state_dict())
    network.grow(2)
    network.add_adapters()
    network.train_only(["adapter"])
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    for _ in range(2):
        network.train()
        optimizer.zero_grad()
        network(image_of(network)).features.square().mean().backward()
        optimizer.step()
    network.merge()
    exported = network.merge_and_unload([*TASKS, {"name": "third", "classes": ["d", "e"]}])
    tiny.randomise(exported, 9)
    after = network.state_dict()
    stored = {key: value for key, value in before.items() if key.startswith("backbone.") and ".merged." not in key}
    assert not tiny.changed_keys(stored, {key: after[key] for key in stored})
    assert not torch.equal(
        after["backbone.blocks.features_3.adapters.task2.features_3_conv_0_0.b"],
        after["backbone.blocks.features_3.adapters.task1.features_3_conv_0_0.b"],
    )


def test_unmerging_restores_each_tasks_own_adapters(tiny: SimpleNamespace) -> None:
    network = network_of(tiny)
    image = image_of(network)
    with torch.no_grad():
        merged = network(image).features
        network.unmerge()
        both = network.backbone(image)
        for number in range(2):
            with network.through([f"task{number}"]):
                assert torch.equal(network.backbone(image)[:, 0], both[:, number])
        network.merge()
        assert torch.equal(network(image).features, merged)


def test_rank_8_on_mobilenet_has_203_thousand_parameters_a_task_and_keeps_no_more(tiny: SimpleNamespace) -> None:
    network = network_of(tiny)
    factors = [p for name, p in network.named_parameters() if ".adapters.task1." in name]
    assert sum(parameter.numel() for parameter in factors) == 203_128
    assert network.kept_bytes() == 2 * 4 * 203_128, "the merged change is made anew from the factors"


def test_every_convolution_from_the_first_site_on_is_adapted() -> None:
    backbone = AdaptedBackbone("mobilenet_v2", LowRank(), ["features.15"], ["task0"])
    (block,) = backbone.blocks.values()
    convolutions = {name for name, module in block.block.named_modules() if isinstance(module, nn.Conv2d)}
    assert set(block.layers.values()) == {f"{name}.weight" for name in convolutions}
    assert block.adapters["task0"].keys() == block.layers.keys()
    assert sum(block.block.get_submodule(name).groups > 1 for name in convolutions) == 3


@pytest.mark.parametrize(("rank", "expected"), [(1, 1), (4, 4), (99, 6)])
def test_products_have_the_asked_rank_but_no_more_than_the_layer(rank: int, expected: int) -> None:
    change = random_change(nn.Conv2d(2, 6, 3), 0, rank)
    assert change.a.shape == (expected, 18)
    assert int(torch.linalg.matrix_rank(change().detach().flatten(1))) == expected


def test_a_rank_below_one_is_refused() -> None:
    with pytest.raises(UserError, match="cannot have rank 0: use at least 1 .key 'adapter#rank'"):
        LowRank(rank=0)


def test_folding_adapters_that_are_not_linear_is_refused_with_the_reason(tiny: SimpleNamespace) -> None:
    network = tiny.network(sizes=[2])
    with pytest.raises(UserError, match="adapter conv does not fold into the backbone, since it is not linear"):
        network.backbone.folded()


def test_folding_several_branches_into_one_backbone_is_refused(tiny: SimpleNamespace) -> None:
    network = network_of(tiny)
    network.unmerge()
    with pytest.raises(UserError, match="2 sets of adapters do not fold into one backbone: merge them first"):
        network.merge_and_unload(TASKS)


def test_images_may_be_smaller_than_other_adapters_need() -> None:
    network = ContinualNet("mobilenet_v2", adapter=LowRank(), image_size=8)
    assert network.backbone(torch.zeros(1, 3, 8, 8)).isfinite().all()


def test_merging_by_samples_weighs_the_products(tiny: SimpleNamespace) -> None:
    network = network_of(tiny)
    changes = [network.mergeable_state(name) for name in ("task0", "task1")]
    samples = [{"samples": dict.fromkeys(changes[0], torch.tensor(float(images)))} for images in (3, 1)]
    network.merge(Merging(BySamples(), statistics=SimpleNamespace(tasks=samples)))
    merged = network.branch_state("merged")
    assert merged.keys() == changes[0].keys()
    for name, change in merged.items():
        torch.testing.assert_close(change, (3 * changes[0][name] + changes[1][name]) / 4)
