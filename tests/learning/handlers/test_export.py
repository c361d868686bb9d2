"""What is written rebuilds the network, alone and exactly."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from scripts.model.description import class_names
from scripts.model.folder import TrainedModel
from scripts.model.networks import Classifier, classifier_from


def rebuilt(folder: Path) -> tuple[Classifier, dict[str, Any]]:
    description = TrainedModel.open(folder).description
    network = classifier_from(description)
    network.load_state_dict(torch.load(folder / "model.pt", weights_only=True), strict=True)
    return network.eval(), description


@pytest.fixture(params=["finished", "finished_acl"])
def run(request: pytest.FixtureRequest) -> SimpleNamespace:
    return request.getfixturevalue(request.param)


def test_the_written_model_predicts_the_same(run: SimpleNamespace, images: Tensor) -> None:
    network, description = rebuilt(run.folder)
    with torch.no_grad():
        assert torch.equal(network(images), run.network.eval()(images).logits)
    assert class_names(description) == ["class0", "class1", "class2", "class3"]
    assert [task["name"] for task in description["tasks"]] == ["set0", "set1"]
    assert description["image"]["size"] == 33


def test_every_task_leaves_a_model_of_its_own(run: SimpleNamespace, images: Tensor) -> None:
    first, description = rebuilt(run.folder / "task_0")
    assert class_names(description) == ["class0", "class1"]
    assert first(images).shape == (5, 2)
    last, _ = rebuilt(run.folder / "task_1")
    final, _ = rebuilt(run.folder)
    assert torch.equal(last(images), final(images))
    assert not (run.folder / "task_2").exists()


def test_the_model_is_a_plain_state_dict(run: SimpleNamespace) -> None:
    state = torch.load(run.folder / "model.pt", weights_only=True)
    assert type(state) is dict
    assert all(type(value) is torch.Tensor for value in state.values())
    description = json.loads((run.folder / "network.json").read_text())
    used = {key.split("adapters.")[1].split(".")[0] for key in state if "adapters." in key}
    assert used == set(description["branches"])
    assert not any("auxiliary" in key for key in state)
