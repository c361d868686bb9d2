"""Recalibration follows the merge, on the current task's images and the memory, and moves nothing but statistics."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from scripts.learning.features import FeatureExtractor
from scripts.learning.handlers import BatchNormRecalibrationHandler
from scripts.learning.handlers.batchnorm_recalibration import mixed_batches
from scripts.model.networks import Merging, TaskGroups


@pytest.mark.parametrize("groups", [None, TaskGroups(given=[0, 1])])
def test_only_the_merged_statistics_change(groups: TaskGroups | None, tiny: SimpleNamespace, tmp_path: Path) -> None:
    tasks = tiny.tasks(tmp_path, [2, 2], train=3)
    network = tiny.network("others", sizes=[2, 2])
    network.merge(Merging(groups=groups))
    before = tiny.copy_of(network.state_dict())
    features = FeatureExtractor(network, tiny.transform(), 4)
    memory = SimpleNamespace(items=lambda: list(tasks[0].train[:2]))
    engine = SimpleNamespace(tasks=tasks, state=SimpleNamespace(task=2), memory=memory)
    BatchNormRecalibrationHandler(network, features)(engine)  # type: ignore[arg-type]
    changed = tiny.changed_keys(before, network.state_dict())
    moved = {key.split(".adapters.")[1].split(".")[0] for key in changed if key.endswith("running_mean")}
    assert moved == set(network.backbone.branches)
    assert all(".adapters.merged" in key and ("running_" in key or "num_batches" in key) for key in changed)
    assert not any(module.training for module in network.modules())


def test_batches_mix_the_classes_the_same_at_every_call_and_none_is_a_single_image(
    tiny: SimpleNamespace, tmp_path: Path
) -> None:
    (task,) = tiny.tasks(tmp_path, [3], train=3)
    features = FeatureExtractor(tiny.network(), tiny.transform(), 4)
    first, second = (list(mixed_batches(features, task.train)) for _ in range(2))
    assert [len(batch) for batch in first] == [4, 4]
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    ordered = next(features.images(task.train))
    assert not torch.equal(first[0], ordered)
