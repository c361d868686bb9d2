"""Heads in closed form as they are shipped: stopped and gone on, learnt in parts, without a memory, and forgetting."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigWorkflow

from scripts.commands.forget import main
from scripts.engines import ContinualEvents
from scripts.inference.model import load_classifier

# unequal tasks, one of them of a single class
SPLIT = [["clusters/nests", "clusters/rings"], ["fibres/parallel"], ["cells/large", "cells/small"]]
SMALL: dict[str, Any] = {
    "source#root#train_per_class": 4,
    "source#root#test_per_class": 2,
    "least_images": 1,
    "backbone": "mobilenet_v2",
    "sites": ["features.3", "features.5"],
    "backbone_epochs": 1,
    "adapter_epochs": 1,
    "image_size": 33,
    "batch_size": 8,
    "device": "cpu",
    "models_dir": "$None",
}


def stop_before_the_sums_are_saved(workflow: ConfigWorkflow) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    workflow.trainer.add_event_handler(ContinualEvents.CLOSED_FORM_COMPLETED, interrupt)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("closed_form") / "images"


@pytest.fixture
def train(images: Path, run_here: Callable[..., None]) -> Callable[..., None]:
    """Train a method on small images into a folder."""

    def run(method: str, output: Path, *arguments: Any, split: Any = SPLIT, **overrides: Any) -> None:
        own = {"dataset_dir": images, "output_dir": output, "split": split}
        run_here({**SMALL, **own, **overrides}, ["configs/train.json", f"configs/methods/{method}.json"], *arguments)

    return run


def sums_of(run: Path) -> dict[str, Any]:
    return torch.load(run / "checkpoint.pt", weights_only=True)["memory"]["sums"]


@pytest.mark.parametrize("method", ["dynammo_ridge_without_memory", "ranpac", "fecam"])
def test_a_later_task_stopped_on_the_way_ends_with_the_weights_and_sums_of_one_run(
    method: str, train: Callable[..., None], weights_digest: Callable[[Path], str], tmp_path: Path
) -> None:
    later = {"split": SPLIT[2:], "previous": tmp_path / "earlier"}
    train(method, tmp_path / "whole")
    train(method, tmp_path / "earlier", split=SPLIT[:2])
    with pytest.raises(KeyboardInterrupt):
        train(method, tmp_path / "later", stop_before_the_sums_are_saved, **later)
    train(method, tmp_path / "later", **later)
    for name in ("model.pt", "checkpoint.pt"):
        assert weights_digest(tmp_path / "later" / name) == weights_digest(tmp_path / "whole" / name), name
    expected, found = sums_of(tmp_path / "whole"), sums_of(tmp_path / "later")
    assert all(torch.equal(expected[name], found[name]) for name in ("second", "first", "weights"))
    assert len(json.loads((tmp_path / "whole/metrics.json").read_text())["accuracies"]) == 3
    network = load_classifier(tmp_path / "whole")
    image = torch.zeros(2, 3, 33, 33)
    assert torch.allclose(torch.jit.script(network)(image), network(image), atol=1e-5)


@pytest.mark.parametrize("method", ["dynammo_ridge", "first_task_ridge", "ridge", "ncm"])
def test_one_image_a_class_is_enough_where_it_is_allowed(
    method: str, train: Callable[..., None], tmp_path: Path
) -> None:
    memory = {"memory_size": 4} if method == "dynammo_ridge" else {}
    train(method, tmp_path / "run", limit=1, split=[SPLIT[0], SPLIT[2]], **memory)
    assert len(json.loads((tmp_path / "run/metrics.json").read_text())["accuracies"]) == 2


def test_a_forgotten_image_is_out_of_the_sums_and_the_model(
    train: Callable[..., None], images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train("ridge", tmp_path / "run")
    before, model = sums_of(tmp_path / "run"), torch.load(tmp_path / "run/model.pt", weights_only=True)
    folder = images / "Pathology16/fibres/train/parallel"
    image = sorted(folder.iterdir())[0]
    capsys.readouterr()
    assert main([str(tmp_path / "run"), str(image), "--class", "fibres/parallel"]) == 0
    assert "Took 1 images out of the sums" in capsys.readouterr().out
    after, network = sums_of(tmp_path / "run"), load_classifier(tmp_path / "run")
    assert after["first"][2, -1].item() == pytest.approx(0.75 * before["first"][2, -1].item())
    assert torch.equal(after["first"][:2], before["first"][:2])
    assert not torch.equal(network.state_dict()["head.linear.weight"], model["head.linear.weight"])
    checkpoint = torch.load(tmp_path / "run/checkpoint.pt", weights_only=True)["weights"]
    assert torch.equal(network.state_dict()["head.linear.weight"], checkpoint["head.linear.weight"])
    assert main([str(tmp_path / "run"), str(image), "--class", "fibres"]) == 1
    assert "unknown class 'fibres': give one of clusters/nests" in capsys.readouterr().err
