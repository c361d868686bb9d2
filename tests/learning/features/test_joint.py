"""Ridge regression on all images at once equals itself solved plainly, and fitted again without an image."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from scripts.commands.suspects import Suspect, find_suspects
from scripts.learning.features import FeatureExtractor, JointRidge
from scripts.learning.tasks import Task
from scripts.model.networks import ContinualNet
from scripts.utils.errors import UserError

VIEWS = [(), (3,)]


def joint_of(network: ContinualNet, tasks: list[Task], tiny: SimpleNamespace, **own: float) -> JointRidge:
    extractor = FeatureExtractor(network, tiny.transform(), 8)
    return JointRidge(network.head, extractor, tasks, VIEWS, [0.01, 0.1, 1.0], **own)


def refitted(joint: JointRidge, left_out: int | None, penalty: Tensor) -> Tensor:
    """Return the weights [D, C] of ridge regression on all images but one, each class's weight as it was."""
    count, classes = len(joint.labels), int(joint.labels.max()) + 1
    sizes = torch.bincount(joint.labels).double() * joint.vectors.shape[1]
    kept = [number for number in range(count) if number != left_out]
    x = joint.vectors[kept].flatten(0, 1)
    labels = joint.labels[kept].repeat_interleave(joint.vectors.shape[1])
    weights = 1 / sizes[labels]
    targets = torch.eye(classes, dtype=torch.double)[labels]
    return torch.linalg.solve(x.T @ (weights[:, None] * x) + penalty, x.T @ (weights[:, None] * targets))


def penalty_of(joint: JointRidge) -> Tensor:
    x, sizes = joint.vectors.flatten(0, 1), torch.bincount(joint.labels).double() * joint.vectors.shape[1]
    weights = 1 / sizes[joint.labels.repeat_interleave(joint.vectors.shape[1])]
    second = x.T @ (weights[:, None] * x)
    return joint.shrinkage * second.diagonal().mean() * torch.eye(len(second), dtype=torch.double)


def test_scores_are_those_of_a_plain_solution_and_of_a_new_fit_without_the_image(
    tmp_path: Path, tiny: SimpleNamespace
) -> None:
    tasks, network = tiny.tasks(tmp_path, (2, 1)), tiny.network(adapter=None, sizes=())
    joint = joint_of(network, tasks, tiny, shrinkage=0.1)
    penalty = penalty_of(joint)
    test = [item for task in tasks for item in task.test]
    plain = joint.features.features(test)[:, 0, 0].double()
    expected = torch.cat([plain, torch.ones(len(test), 1, dtype=torch.double)], 1) @ refitted(joint, None, penalty)
    assert torch.allclose(joint.classify(test), expected, atol=1e-8)
    found = joint.left_out()
    for number in (0, 7, 17):
        alone = (joint.vectors[number] @ refitted(joint, number, penalty)).mean(0)
        assert torch.allclose(found[number], alone, atol=1e-8)


def test_suspects_are_what_another_class_wins_the_surest_first() -> None:
    items = [{"image": f"{number}.png"} for number in range(4)]
    scores = torch.tensor([[0.9, 0.2, 0.1], [0.3, 0.2, 0.8], [0.6, 0.5, 0.1], [0.0, 0.1, 0.7]])
    joint: Any = SimpleNamespace(items=items, labels=torch.tensor([0, 1, 1, 2]), left_out=lambda: scores)
    assert find_suspects(joint, ["a", "b", "c"]) == [
        Suspect("1.png", "b", "c", pytest.approx(-0.6)),
        Suspect("2.png", "b", "a", pytest.approx(-0.1)),
    ]


def test_a_network_of_several_branches_is_refused(tmp_path: Path, tiny: SimpleNamespace) -> None:
    network = tiny.network("others", sizes=(2, 2))
    network.unmerge()
    with pytest.raises(UserError, match="a branch a task"):
        joint_of(network, tiny.tasks(tmp_path), tiny)
