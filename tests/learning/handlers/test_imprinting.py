"""New rows start at the means of their class's images, as long as the old ones are on average."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from scripts.learning.handlers import ImprintingHandler
from scripts.learning.handlers.imprinting import cluster_means
from scripts.learning.tasks import Task
from scripts.utils.errors import UserError


def imprint(network: Any, task: Task, features: Tensor) -> None:
    ImprintingHandler(network, lambda items: features)(SimpleNamespace(current_task=task))  # type: ignore[arg-type]


@pytest.mark.parametrize("sizes", [(2, 2), (3, 1)])
def test_a_row_is_the_direction_of_its_classs_mean(
    sizes: tuple[int, int], tmp_path: Path, tiny: SimpleNamespace
) -> None:
    task, network = tiny.tasks(tmp_path, sizes)[1], tiny.network("cosine", sizes, adapter=None)
    before = tiny.copy_of(network.state_dict())
    features = torch.randn(len(task.train), 1280)
    imprint(network, task, features)
    assert tiny.changed_keys(before, network.state_dict()) == {"head.rows.1.weight"}
    length = before["head.rows.0.weight"].norm(dim=1).mean()
    for number in range(sizes[1]):
        own = [
            row / row.norm()
            for row, item in zip(features, task.train, strict=True)
            if item["label"] == task.first + number
        ]
        mean = torch.stack(own).mean(0)
        torch.testing.assert_close(network.head.rows[1].weight[number].detach(), length * mean / mean.norm())


def test_several_rows_are_the_means_of_clusters(tmp_path: Path, tiny: SimpleNamespace) -> None:
    task, network = tiny.tasks(tmp_path, (1, 1), train=30)[1], tiny.network("proxies", (1, 1), adapter=None)
    centres = normalize(torch.randn(10, 1280), dim=1)
    imprint(network, task, centres.repeat(3, 1) * (0.5 + torch.rand(30, 1)) + 1e-4 * torch.randn(30, 1280))
    near = normalize(network.head.rows[1].weight.detach(), dim=1) @ centres.T
    assert bool((near.amax(1) > 0.99).all())
    assert sorted(near.argmax(1).tolist()) == list(range(10))


@pytest.mark.parametrize("points", [1, 3, 10])
def test_fewer_points_than_rows_come_several_times(points: int) -> None:
    data = torch.eye(points, 12).repeat(2, 1)
    means = cluster_means(data, 10)
    assert means.shape == (10, 12)
    assert {tuple(row) for row in means.tolist()} == {tuple(row) for row in data.tolist()}
    assert torch.equal(means, cluster_means(data, 10))


def test_the_first_task_is_left_alone(tmp_path: Path, tiny: SimpleNamespace) -> None:
    network = tiny.network("cosine", (2,), adapter=None)
    before = tiny.copy_of(network.state_dict())
    imprint(network, tiny.tasks(tmp_path)[0], torch.randn(12, 1280))
    assert not tiny.changed_keys(before, network.state_dict())


def test_another_head_is_refused_before_training(tiny: SimpleNamespace) -> None:
    with pytest.raises(UserError, match="needs a head whose rows are directions, not 'unified': choose one of cosine"):
        ImprintingHandler(tiny.network(), lambda items: torch.zeros(1))  # type: ignore[arg-type]
