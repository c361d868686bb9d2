"""The growing network: what learns and what stays, one pass after averaging, and the way out."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from scripts.learning.losses import auxiliary_cross_entropy, seen_cross_entropy
from scripts.model.networks import (
    Average,
    ContinualNet,
    Convolutions,
    LowRank,
    MagMax,
    Merging,
    NetworkState,
    Outputs,
    RunningMean,
    Ties,
    WholeBackbones,
)
from scripts.model.networks.adapters import Adapter
from scripts.model.networks.merging import Row
from scripts.utils.errors import UserError

PARTS = ["backbone", "adapter", "auxiliary", "head"]


def adapter_state(network: ContinualNet, branch: str) -> dict[str, Tensor]:
    blocks = network.backbone.blocks.items()
    return {f"{site}.{k}": v for site, block in blocks for k, v in block.adapters[branch].state_dict().items()}


def train_a_little(network: ContinualNet, images: Tensor, names: list[str]) -> None:
    """Three steps as MONAI takes them: ``network.train()`` before each."""
    network.train_only(names)
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.01)
    labels = torch.arange(len(images)) % sum(network.classes)
    for _ in range(3):
        network.train()
        optimizer.zero_grad()
        outputs: Outputs = network(images)
        loss = seen_cross_entropy(outputs, labels)
        if network.auxiliary is not None:
            loss = loss + auxiliary_cross_entropy(outputs, labels)
        loss.backward()
        optimizer.step()


def prefix_of(part: str) -> tuple[str, ...]:
    sites = ("features_3", "features_5")
    return {
        "backbone": ("backbone.stem.", *(f"backbone.blocks.{site}.block." for site in sites)),
        "adapter": tuple(f"backbone.blocks.{site}.adapters.task1." for site in sites),
        "auxiliary": ("auxiliary.",),
        "head": ("head.",),
    }[part]


@pytest.mark.parametrize("names", [["adapter", "auxiliary"], ["head"], ["backbone", "auxiliary"], ["backbone", "head"]])
def test_only_what_is_named_changes_buffers_included(names: list[str], tiny: SimpleNamespace, images: Tensor) -> None:
    network = tiny.network(sizes=[2, 2])
    network.add_auxiliary(3)
    before = tiny.copy_of(network.state_dict())
    train_a_little(network, images, names)
    changed = tiny.changed_keys(before, network.state_dict())
    expected = {key for key in before if key.startswith(tuple(p for name in names for p in prefix_of(name)))}
    assert changed <= expected
    assert {key for key in expected if key.endswith("running_mean")} <= changed
    assert all(any(key.startswith(prefix_of(name)) for key in changed) for name in names)
    assert network.trained_state().keys() == expected


def test_a_frozen_part_is_in_evaluation_mode_and_what_learns_is_not(tiny: SimpleNamespace) -> None:
    network = tiny.network(sizes=[2, 2])
    network.add_auxiliary(3)
    network.train_only(["adapter", "auxiliary"])
    network.train()
    training = {name for name, module in network.named_modules() if module.training and name}
    assert training
    assert all("adapters.task1" in name or name == "auxiliary" for name in training)
    network.eval()
    assert not any(module.training for module in network.modules())


def test_a_new_adapter_starts_from_the_task_before(tiny: SimpleNamespace) -> None:
    network = tiny.network(sizes=[2, 2])
    first, second = adapter_state(network, "task0"), adapter_state(network, "task1")
    assert tiny.changed_keys(first, second) == first.keys()
    network.merge()
    network.grow(3)
    network.add_adapters()
    third = adapter_state(network, "task2")
    assert not tiny.changed_keys(second, third)
    assert network.backbone.branches == ["task2"]
    with torch.no_grad():
        next(network.backbone.blocks["features_3"].adapters["task2"].parameters()).add_(1)
    assert not tiny.changed_keys(second, adapter_state(network, "task1")), "a copy, not the same tensors"


def test_the_first_adapter_is_fresh(tiny: SimpleNamespace) -> None:
    network = tiny.network()
    network.grow(2)
    network.add_adapters()
    assert [float(v) for k, v in adapter_state(network, "task0").items() if k.endswith("scale")] == pytest.approx(
        [0.02] * 2
    )


def test_merging_puts_the_mean_of_the_tasks_adapters_before_each_site(tiny: SimpleNamespace) -> None:
    network = tiny.network(sizes=[2, 1, 2])
    tasks = [tiny.copy_of(adapter_state(network, f"task{number}")) for number in range(3)]
    for _ in range(2):  # a second merge must not count the first one's result
        network.merge()
    merged = adapter_state(network, "merged")
    for key, value in merged.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, sum(task[key] for task in tasks) / 3, rtol=1e-6, atol=1e-7)
    assert network.backbone.branches == ["merged"]
    assert network.adapter_branches() == ["task0", "task1", "task2"]
    for number, task in enumerate(tasks):
        assert not tiny.changed_keys(task, adapter_state(network, f"task{number}"))


def test_a_forward_pass_never_averages(tiny: SimpleNamespace, images: Tensor) -> None:
    network = tiny.network(sizes=[2, 2])
    network.merge()
    with torch.no_grad():
        next(network.backbone.blocks["features_3"].adapters["task0"].parameters()).add_(1)
    before, pointers = tiny.copy_of(adapter_state(network, "merged")), adapter_state(network, "merged")
    for mode in (True, False):
        network.train(mode)
        network(images)
    after = adapter_state(network, "merged")
    assert not tiny.changed_keys(before, after)
    assert all(pointers[key].data_ptr() == value.data_ptr() for key, value in after.items())


def test_after_merging_the_features_are_those_of_the_merged_adapters_alone(
    tiny: SimpleNamespace, images: Tensor
) -> None:
    network = tiny.network(sizes=[2, 2]).eval()
    network.merge()
    before = network(images).features
    assert before.shape[1] == 1
    tiny.randomise(network.backbone.blocks["features_3"].adapters["task0"], 5)
    assert torch.equal(network(images).features, before)
    tiny.randomise(network.backbone.blocks["features_3"].adapters["merged"], 5)
    assert not torch.equal(network(images).features, before)


def test_separate_adapters_are_a_branch_each(tiny: SimpleNamespace, images: Tensor) -> None:
    network = tiny.network("others", sizes=[2, 2]).eval()
    network.unmerge()
    both = network(images).features
    for number in range(2):
        with network.through([f"task{number}"]):
            assert torch.equal(network(images).features[:, 0], both[:, number])
    assert network.backbone.branches == ["task0", "task1"]
    assert not torch.equal(both[:, 0], both[:, 1])


def test_through_comes_back_after_an_error(tiny: SimpleNamespace) -> None:
    network = tiny.network(sizes=[2, 2])
    network.merge()
    with pytest.raises(RuntimeError), network.through(["task0"]):
        raise RuntimeError
    assert network.backbone.branches == ["merged"]


KINDS: dict[str, dict[str, Any]] = {
    "unified": {"head": "unified"},
    "others": {"head": "others"},
    "acl": {"head": "others"},
    "plain": {"head": "unified", "adapter": None},
    "expandable": {"head": "concatenated", "adapter": WholeBackbones()},
    "cosine": {"head": "cosine"},
    "proxies": {"head": "proxies"},
    "low rank": {"head": "unified", "adapter": LowRank()},
}


def grown(kind: str, tiny: SimpleNamespace) -> ContinualNet:
    network = tiny.network(sizes=[2, 3], **KINDS[kind])
    if kind == "acl":
        network.unmerge()
    elif kind == "plain":
        network.backbone.branches = ["backbone"]
    elif kind != "expandable":
        network.merge()
    return network.eval()


def names_of(network: ContinualNet) -> list[dict[str, Any]]:
    return [{"name": f"t{n}", "classes": [f"{n}-{c}" for c in range(size)]} for n, size in enumerate(network.classes)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_unloaded_network_gives_exactly_the_same_logits(kind: str, tiny: SimpleNamespace, images: Tensor) -> None:
    network = grown(kind, tiny)
    plain = network.merge_and_unload(names_of(network))
    with torch.no_grad():
        outputs = network(images)
        assert torch.equal(plain(images), outputs.logits)
    assert not plain.training
    assert not any("auxiliary" in key for key in plain.state_dict())
    used = {key.split("adapters.")[1].split(".")[0] for key in plain.state_dict() if "adapters." in key}
    expected: dict[str, set[str]] = {"acl": {"task0", "task1"}, "plain": set(), "expandable": set(), "low rank": set()}
    assert used == expected.get(kind, {"merged"})
    tiny.randomise(plain, 9)
    with torch.no_grad():
        assert torch.equal(network(images).logits, outputs.logits), "the plain network has tensors of its own"


@pytest.mark.parametrize("kind", KINDS)
def test_any_grown_state_is_rebuilt(kind: str, tiny: SimpleNamespace, images: Tensor) -> None:
    network = grown(kind, tiny)
    rebuilt = tiny.network(seed=7, **KINDS[kind])
    NetworkState(rebuilt).load_state_dict(copy.deepcopy(NetworkState(network).state_dict()))
    assert not tiny.changed_keys(network.state_dict(), rebuilt.state_dict())
    assert rebuilt.structure() == network.structure()
    with torch.no_grad():
        assert torch.equal(rebuilt.eval()(images).logits, network(images).logits)


def test_a_state_before_the_first_task_is_rebuilt(tiny: SimpleNamespace) -> None:
    network, rebuilt = tiny.network(), tiny.network(seed=1)
    rebuilt.load_grown(network.structure(), network.state_dict())
    assert not tiny.changed_keys(network.state_dict(), rebuilt.state_dict())


def test_an_untrained_backbone_depends_on_its_seed_alone(tiny: SimpleNamespace) -> None:
    torch.manual_seed(1)
    first, after = tiny.network(seed=3), torch.rand(1)
    torch.manual_seed(2)
    assert not tiny.changed_keys(first.state_dict(), tiny.network(seed=3).state_dict())
    other = tiny.network(seed=4).state_dict()
    different = tiny.changed_keys(first.state_dict(), other)
    assert {key for key in other if key.endswith(".0.0.weight")} <= different
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), after), "making a network leaves torch's generator alone"


def test_outputs_say_what_each_head_thinks(tiny: SimpleNamespace, images: Tensor) -> None:
    unified, others = grown("unified", tiny)(images), grown("others", tiny)(images)
    assert unified.extras == {}
    assert unified.task_logits == []
    assert unified.auxiliary is None
    assert others.extras["others"].shape == (5, 2)
    assert [logits.shape for logits in others.task_logits] == [(5, 3), (5, 4)]
    assert unified.logits.shape == others.logits.shape == (5, 5)
    assert unified.classes == (2, 3)
    assert unified.features.shape == (5, 1, 1280)


def test_the_maps_are_those_after_each_segment(tiny: SimpleNamespace, images: Tensor) -> None:
    network = grown("unified", tiny)
    with torch.no_grad():
        x = network.backbone.stem(images.contiguous(memory_format=torch.channels_last))
        outputs, expected = network(images), []
        for block in network.backbone.blocks.values():
            (x,) = block(x, "merged")
            expected.append(x.clone())
    assert [found.shape for found in outputs.maps] == [(5, 32, 5, 5), (5, 1280, 2, 2)]
    assert all(torch.equal(*pair) for pair in zip(outputs.maps, expected, strict=True))
    assert torch.equal(outputs.features[:, 0], network.backbone.pool(expected[-1]))


@pytest.mark.parametrize("head", ["cosine", "proxies"])
def test_the_rows_of_old_classes_can_stay_while_the_new_ones_learn(
    head: str, tiny: SimpleNamespace, images: Tensor
) -> None:
    network = tiny.network(head, sizes=[2, 3], adapter=None)
    before = tiny.copy_of(network.state_dict())
    train_a_little(network, images, ["new_rows"])
    assert tiny.changed_keys(before, network.state_dict()) == {"head.scale.factor", "head.rows.1.weight"}
    assert network.trained_state().keys() == {"head.scale.factor", "head.rows.1.weight"}
    train_a_little(network, images, ["head"])
    assert "head.rows.0.weight" in tiny.changed_keys(before, network.state_dict())


def test_a_head_without_one_linear_layer_says_so(tiny: SimpleNamespace) -> None:
    for head in ("others", "cosine"):
        message = f"one linear layer over all classes, not '{head}': choose one of unified, .*.key 'network_def#head'"
        with pytest.raises(UserError, match=message):
            tiny.network(head).linear_layer()


@pytest.mark.parametrize("head", ["unified", "others"])
def test_the_head_starts_from_the_auxiliary_head(head: str, tiny: SimpleNamespace, images: Tensor) -> None:
    network = tiny.network(head, sizes=[2, 3]).eval()
    network.add_auxiliary(4)
    tiny.randomise(network.auxiliary, 3)
    expected = network(images).auxiliary
    network.start_head_from_auxiliary()
    network.drop_auxiliary()
    outputs = network(images)
    found = outputs.logits[:, 2:] if head == "unified" else outputs.task_logits[1]
    torch.testing.assert_close(found, expected[:, : found.shape[1]])
    assert outputs.auxiliary is None


def test_a_task_gets_a_copy_of_the_newest_backbone_which_alone_learns(tiny: SimpleNamespace, images: Tensor) -> None:
    network = tiny.network(sizes=[2, 2], **KINDS["expandable"])
    network.grow(1)
    network.add_adapters()
    network.add_auxiliary(2)
    backbones = network.backbone.backbones
    assert network.backbone.branches == list(backbones) == ["backbone", "task1", "task2"]
    assert not tiny.changed_keys(backbones["task1"].state_dict(), backbones["task2"].state_dict())
    before, learning = tiny.copy_of(network.state_dict()), ("backbone.backbones.task2.", "auxiliary.", "head.")
    train_a_little(network, images, ["backbone", "auxiliary", "head"])
    changed = tiny.changed_keys(before, network.state_dict())
    expected = {key for key in before if key.startswith(learning)}
    assert network.trained_state().keys() == expected
    assert changed <= expected
    assert {key for key in expected if key.endswith((".running_mean", ".0.weight"))} <= changed
    assert all(any(key.startswith(part) for key in changed) for part in learning)
    training = [name for name, module in network.train().named_modules() if module.training and name]
    assert all(f"{name}.".startswith(learning) for name in training)


def test_kept_bytes_of_whole_backbones_are_those_of_all_but_the_first(tiny: SimpleNamespace) -> None:
    network = tiny.network(sizes=[2, 1, 2], **KINDS["expandable"])
    one = sum(
        value.numel() * value.element_size() for value in network.backbone.backbones["backbone"].state_dict().values()
    )
    assert network.kept_bytes() == 2 * one
    assert tiny.network(sizes=[2], **KINDS["expandable"]).kept_bytes() == 0


@pytest.mark.parametrize(
    ("head", "adapter", "kind"),
    [("concatenated", Convolutions(), "conv"), ("concatenated", None, None), ("unified", WholeBackbones(), "backbone")],
)
def test_a_backbone_a_task_and_the_head_that_reads_them_need_each_other(
    head: str, adapter: Adapter | None, kind: str | None
) -> None:
    with pytest.raises(UserError, match=f"need each other, but head is '{head}' and adapter is '{kind}'"):
        ContinualNet("mobilenet_v2", head, adapter, image_size=96)


def test_kept_bytes_are_those_of_the_tasks_adapters(tiny: SimpleNamespace) -> None:
    network = tiny.network(sizes=[2, 2])
    before = network.kept_bytes()
    floats = sum(18 * c**2 + 6 * c + 1 + 4 * c for c in (24, 32))  # and BatchNorm's running statistics
    assert before == 2 * (4 * floats + 8 * 4)  # two counters an adapter
    network.merge()
    assert network.kept_bytes() == before


def tune_by_chance(network: ContinualNet, tiny: SimpleNamespace, number: int) -> dict[str, Tensor]:
    """Change all of a task's adapters, the same way at every call; return a copy of what they are then."""
    branch, generator = network.branch(f"task{number}"), torch.Generator().manual_seed(number)
    tiny.randomise(branch, number)
    with torch.no_grad():
        for parameter in branch.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return tiny.copy_of(branch.state_dict())


def learn_tasks(network: ContinualNet, tiny: SimpleNamespace, row: Row, count: int) -> list[dict[str, Tensor]]:
    """Tune adapters by chance and merge them, task after task; return what each task's were."""
    torch.manual_seed(0)  # of the first adapters
    tuned: list[dict[str, Tensor]] = []
    for number in range(count):
        network.grow(2)
        network.add_adapters()
        tuned.append(tune_by_chance(network, tiny, number))
        network.merge(Merging(row))
    return tuned


@pytest.mark.parametrize("start", ["previous", "first", "running_mean"])
def test_the_running_mean_is_the_uniform_mean_at_a_storage_that_does_not_grow(
    start: str, tiny: SimpleNamespace
) -> None:
    network, uniform = (tiny.network(adapter_start=start) for _ in range(2))
    tuned = learn_tasks(uniform, tiny, Average(), 2)
    learn_tasks(network, tiny, RunningMean(), 2)
    stored = network.kept_bytes()
    for number in range(2, 6):
        for net, row in ((network, RunningMean()), (uniform, Average())):
            net.grow(2)
            net.add_adapters()
            latest = tune_by_chance(net, tiny, number)
            net.merge(Merging(row))
        tuned.append(latest)
        merged = network.branch_state("merged")
        for key, value in uniform.branch_state("merged").items():
            torch.testing.assert_close(merged[key], value, rtol=1e-5, atol=1e-6)
        for key in ("features_3.scale", "features_5.layers.0.weight", "features_5.layers.4.running_var"):
            expected = sum(state[key] for state in tuned) / len(tuned)
            torch.testing.assert_close(merged[key], expected, rtol=1e-5, atol=1e-6)
        assert network.adapter_branches() == [*(["task0"] if start == "first" else []), f"task{number}"]
        assert network.kept_bytes() == stored
    rebuilt = tiny.network(adapter_start=start)
    rebuilt.load_grown(network.structure(), network.state_dict())
    for net in (network, rebuilt):
        net.grow(2)
        net.add_adapters()
    assert not tiny.changed_keys(network.branch_state("task6"), rebuilt.branch_state("task6"))


@pytest.mark.parametrize("row", [Average(), RunningMean()], ids=str)
def test_adapters_start_from_the_first_tasks_or_from_the_mean_of_all(row: Row, tiny: SimpleNamespace) -> None:
    first, mean = (tiny.network(adapter_start=start) for start in ("first", "running_mean"))
    for network in (first, mean):
        tuned = learn_tasks(network, tiny, row, 3)
        network.grow(2)
        network.add_adapters()
    assert not tiny.changed_keys(first.branch_state("task3"), first.branch_state("task0"))
    for key, value in mean.branch_state("task3").items():
        if value.is_floating_point():
            torch.testing.assert_close(value, sum(state[key] for state in tuned) / 3, rtol=1e-5, atol=1e-6)


def test_the_start_can_be_the_base_of_task_vectors(tiny: SimpleNamespace) -> None:
    network = tiny.network()
    network.grow(2)
    network.add_adapters()
    network.keep_start()
    start = tiny.copy_of(network.branch_state("start"))
    assert not tiny.changed_keys(start, network.branch_state("task0"))
    tiny.randomise(network.branch("task0"), 1)
    network.merge(Merging(MagMax(), base="start"))
    assert network.adapter_branches() == ["task0"]
    merged, tuned = network.branch_state("merged"), network.branch_state("task0")
    assert all(torch.allclose(merged[key], tuned[key], atol=1e-6) for key in merged)
    assert not tiny.changed_keys(start, network.branch_state("start"))


def test_merging_refuses_what_was_not_kept(tiny: SimpleNamespace) -> None:
    network = tiny.network(sizes=[2, 2])
    with pytest.raises(UserError, match="was not kept: use --merging#base first"):
        network.merge(Merging(Ties(), base="start"))
    network.merge(Merging(RunningMean()))
    network.grow(2)
    network.add_adapters()
    with pytest.raises(UserError, match="merging by 'Ties' needs the adapters of every task, but those of some"):
        network.merge(Merging(Ties()))


def test_an_unknown_adapter_start_is_refused(tiny: SimpleNamespace) -> None:
    with pytest.raises(UserError, match="unknown adapter start 'last': choose one of previous, first, running_mean"):
        tiny.network(adapter_start="last")


def test_low_rank_adapters_do_not_start_from_a_mean(tiny: SimpleNamespace) -> None:
    with pytest.raises(UserError, match="adapters 'lora' cannot start from a running mean.*'previous' or 'first'"):
        tiny.network(adapter=LowRank(), adapter_start="running_mean")
