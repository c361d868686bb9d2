"""Loading a trained model: the weights arrive unchanged, and what cannot be loaded says why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine
from torch import nn

from scripts.errors import UserError
from scripts.inference import WeightsLoader, load_classifier, load_weights, model_folder
from scripts.networks import Classifier

DESCRIPTION: dict[str, Any] = {
    "backbone": "mobilenet_v2",
    "head": "unified",
    "adapter": "conv_bottleneck",
    "branches": ["merged"],
    "sites": ["features.3"],
    "tasks": [{"name": "first", "classes": ["a", "b"]}, {"name": "second", "classes": ["c"]}],
    "image_size": 40,
    "mean": [0.5, 0.5, 0.5],
    "std": [0.2, 0.2, 0.2],
}
NETWORK = {key: DESCRIPTION[key] for key in ("backbone", "head", "adapter", "branches", "sites", "tasks")}


def test_a_model_comes_back_as_it_was_written(tmp_path: Path) -> None:
    network = Classifier(**NETWORK).eval()
    torch.save(network.state_dict(), tmp_path / "model.pt")
    (tmp_path / "network.json").write_text(json.dumps(DESCRIPTION))
    loaded = load_classifier(tmp_path)
    images = torch.rand(2, 3, 40, 40)
    assert not loaded.training
    assert torch.equal(loaded(images), network(images))


def test_weights_are_loaded_when_the_engine_starts(tmp_path: Path) -> None:
    trained, fresh = nn.Linear(2, 3), nn.Linear(2, 3)
    torch.save(trained.state_dict(), tmp_path / "model.pt")
    engine = Engine(lambda engine, batch: None)
    WeightsLoader(fresh, str(tmp_path / "model.pt")).attach(engine)
    assert not torch.equal(fresh.weight, trained.weight)
    engine.run([0])
    assert torch.equal(fresh.weight, trained.weight)


def test_a_missing_model_says_train_first(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no trained model in .*: give a run"):
        load_weights(nn.Linear(2, 3), tmp_path / "model.pt")


def test_a_broken_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"PK not a model")
    with pytest.raises(UserError, match=r"model.pt cannot be read as a model \(.*\): restore it"):
        load_weights(nn.Linear(2, 3), tmp_path / "model.pt")


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save({"weight": Path("anything")}, tmp_path / "model.pt")
    with pytest.raises(UserError, match="cannot be read as a model"):
        load_weights(nn.Linear(2, 3), tmp_path / "model.pt")


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 4).state_dict(), tmp_path / "model.pt")
    with pytest.raises(UserError, match="not those of the network that network.json describes"):
        load_weights(nn.Linear(2, 3), tmp_path / "model.pt")


def test_a_run_a_task_and_a_folder_are_found_by_what_lies_there(tmp_path: Path) -> None:
    for number in (0, 2, 10):
        (tmp_path / f"task_{number}").mkdir()
        (tmp_path / f"task_{number}" / "model.pt").touch()
        (tmp_path / f"task_{number}" / "network.json").touch()
    (tmp_path / "network.json").touch()
    assert model_folder(str(tmp_path)) == str(tmp_path)
    assert model_folder(str(tmp_path / "task_2")) == str(tmp_path / "task_2")
    assert model_folder(str(tmp_path), 2) == str(tmp_path / "task_2")
    with pytest.raises(UserError, match=r"no model of task 3: choose among 0, 2, 10 \(key 'task'\)"):
        model_folder(str(tmp_path), 3)


def test_a_folder_with_one_model_in_it_is_taken_with_several_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no trained model in .*: give a run or a model's folder"):
        model_folder(str(tmp_path))
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "network.json").touch()
    assert model_folder(str(tmp_path)) == str(tmp_path / "first")
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "network.json").touch()
    with pytest.raises(UserError, match="holds several models: give one of first, second with its folder"):
        model_folder(str(tmp_path))
