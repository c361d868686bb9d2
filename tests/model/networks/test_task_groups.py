"""Tasks that look alike share a set of adapters; a pass a group, whose features each of its tasks' heads reads."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import adjusted_rand_score
from torch import Tensor
from torch.nn.functional import normalize

from scripts.model.networks import ROWS, ContinualNet, Merging, NetworkState, TaskGroups, merge
from scripts.model.networks.cost import flops_per_image
from scripts.utils.errors import UserError


def found(means: Tensor, count: int) -> TaskGroups:
    groups = TaskGroups(count)
    for task, mean in enumerate(means):
        groups.put(task, mean)
    return groups


def test_groups_are_those_of_average_linkage() -> None:
    means = torch.randn(9, 5, generator=torch.Generator().manual_seed(0)).exp()
    for count in (1, 2, 4, 9):
        expected = AgglomerativeClustering(count, linkage="average").fit_predict(normalize(means, dim=1).numpy())
        own = found(means, count).of(9)
        assert adjusted_rand_score(own, expected) == 1
        assert list(dict.fromkeys(own)) == list(range(count)), "numbered as they come"


def test_tasks_that_look_alike_are_together_whatever_their_length() -> None:
    means = torch.tensor([[1.0, 0.0], [0.0, 3.0], [9.0, 0.5], [0.1, 1.0]])
    groups = found(means, 2)
    assert [groups.of(tasks) for tasks in (1, 2, 3, 4)] == [[0], [0, 1], [0, 1, 0], [0, 1, 0, 1]]


def test_features_of_nothing_are_grouped_too() -> None:
    assert found(torch.zeros(3, 4), 2).of(3) == [0, 0, 0]


def test_a_task_learnt_again_takes_its_own_place() -> None:
    groups = found(torch.eye(3), 2)
    groups.put(2, torch.ones(3))
    assert len(groups.means) == 3
    assert torch.equal(groups.means[2], torch.ones(3))


def test_what_was_measured_is_saved() -> None:
    groups, again = found(torch.eye(3), 2), TaskGroups(2)
    again.load_state_dict(groups.state_dict())
    assert again.of(3) == groups.of(3)


def test_given_groups_are_taken() -> None:
    assert TaskGroups(given=[1, 0, 1, 5]).of(3) == [1, 0, 1]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (TaskGroups(given=[0, 0]), r"\[0, 0\] says no group of each of 3 tasks: give a number .*'groups#given'"),
        (TaskGroups(given=[0, -1, 0]), "says no group of each of 3 tasks"),
        (TaskGroups(), "an earlier task was learnt without part 'hierarchical'.*'groups#given'"),
    ],
)
def test_a_task_without_a_group_is_refused(groups: TaskGroups, message: str) -> None:
    with pytest.raises(UserError, match=message):
        groups.of(3)


def test_no_group_at_all_is_refused() -> None:
    with pytest.raises(UserError, match="tasks cannot be in 0 groups: use at least 1 .key 'groups#count'"):
        TaskGroups(0)


def test_only_a_mean_is_not_grouped() -> None:
    with pytest.raises(UserError, match="of a running mean the tasks' own adapters are not kept"):
        Merging(ROWS["running_mean"](), groups=TaskGroups())


TASKS = [{"name": str(task), "classes": [f"{task}a", f"{task}b"]} for task in range(3)]


def grouped(tiny: SimpleNamespace, given: list[int]) -> ContinualNet:
    network = tiny.network("others", sizes=[2, 2, 2])
    network.merge(Merging(groups=TaskGroups(given=given)))
    return network.eval()


def test_each_task_reads_the_merged_adapters_of_its_group(tiny: SimpleNamespace, images: Tensor) -> None:
    network = grouped(tiny, [0, 1, 0])
    alike = merge([network.branch_state("task0"), network.branch_state("task2")])
    assert all(torch.equal(value, alike[key]) for key, value in network.branch_state("merged0").items())
    alone = network.branch_state("task1")
    assert all(torch.equal(value, alone[key]) for key, value in network.branch_state("merged1").items())
    with torch.no_grad():
        features = network(images).features
        for task, branch in enumerate(("merged0", "merged1", "merged0")):
            with network.through([branch]):
                assert torch.equal(features[:, task], network(images).features[:, 0])
    assert not torch.equal(features[:, 0], features[:, 1])


@pytest.mark.parametrize("row", ["samples", "fisher", "ties"])
def test_a_group_reads_what_was_measured_of_its_own_tasks(row: str, tiny: SimpleNamespace) -> None:
    network = tiny.network("others", sizes=[2, 2, 2])
    states = [network.branch_state(f"task{task}") for task in range(3)]
    generator = torch.Generator().manual_seed(0)
    measured = [
        {kind: {key: torch.rand((), generator=generator) for key in states[0]} for kind in ("samples", "fisher")}
        for _ in range(3)
    ]
    network.merge(Merging(ROWS[row](), statistics=SimpleNamespace(tasks=measured), groups=TaskGroups(given=[0, 1, 1])))
    statistics = SimpleNamespace(tasks=measured[1:])
    expected = merge(states[1:], Merging(ROWS[row](), statistics=statistics))
    assert all(torch.equal(value, expected[key]) for key, value in network.branch_state("merged1").items())


def test_passes_flops_and_parameters_grow_with_the_groups(tiny: SimpleNamespace) -> None:
    ends = [[0, 0, 0], [0, 1, 0], [0, 1, 2]]
    networks = [grouped(tiny, given).merge_and_unload(TASKS) for given in ends]
    assert [network.backbone.passes() for network in networks] == [1, 2, 3]
    flops = [flops_per_image(network, tiny.side) for network in networks]
    assert flops[0] < flops[1] and flops[2] - flops[1] == flops[1] - flops[0]
    sizes = [sum(weight.numel() for weight in network.parameters()) for network in networks]
    assert sizes[0] < sizes[1] and sizes[2] - sizes[1] == sizes[1] - sizes[0]


def test_one_group_is_dynammo_and_one_a_task_is_acl(tiny: SimpleNamespace, images: Tensor) -> None:
    with torch.no_grad():
        together, apart = grouped(tiny, [0, 0, 0]), grouped(tiny, [0, 1, 2])
        one, several = together(images).logits, apart(images).logits
        together.merge()
        assert torch.equal(one, together.eval()(images).logits)
        apart.unmerge()
        assert torch.equal(several, apart(images).logits)


def test_a_group_that_is_no_more_leaves_nothing(tiny: SimpleNamespace) -> None:
    network = grouped(tiny, [0, 1, 2])
    own = network.kept_bytes()
    network.merge(Merging(groups=TaskGroups(given=[0, 0, 1])))
    assert network.structure()["adapters"] == ["task0", "task1", "task2", "merged0", "merged1"]
    assert network.structure()["branches"] == ["merged0", "merged0", "merged1"]
    assert network.kept_bytes() == own


def test_it_is_rebuilt_compiled_and_unloaded(tiny: SimpleNamespace, images: Tensor) -> None:
    network, rebuilt = grouped(tiny, [0, 1, 0]), tiny.network("others", seed=7)
    NetworkState(rebuilt).load_state_dict(NetworkState(network).state_dict())
    plain = network.merge_and_unload(TASKS)
    with torch.no_grad():
        expected = network(images).logits
        assert torch.equal(rebuilt.eval()(images).logits, expected)
        assert torch.equal(plain(images), expected)
        torch.testing.assert_close(torch.jit.script(plain)(images), expected)
    assert not [key for key in plain.state_dict() if ".adapters.task" in key]


def test_groups_do_not_fold_into_one_backbone(tiny: SimpleNamespace) -> None:
    with pytest.raises(UserError, match="adapter conv does not fold"):
        grouped(tiny, [0, 1, 0]).backbone.folded()
