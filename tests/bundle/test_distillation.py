"""Methods that leave a plain backbone: stopped and gone on, learnt in parts, refused, and the model they leave."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.bundle import ConfigWorkflow

from scripts.inference.model import load_classifier

METHODS = ("icarl", "wa", "bic", "dynammo_lora")
# unequal tasks, one of them of a single class
SPLIT = [["clusters/nests", "clusters/rings"], ["fibres/parallel"], ["cells/large", "cells/small"]]
SMALL: dict[str, Any] = {
    "source#root#train_per_class": 4,
    "source#root#test_per_class": 2,
    "backbone": "mobilenet_v2",
    "backbone_epochs": 1,
    "adapter_epochs": 2,
    "finetune_epochs": 1,
    "memory_size": 10,
    "image_size": 33,
    "batch_size": 8,
    "device": "cpu",
    "models_dir": "$None",
}


def configs(method: str) -> list[str]:
    return ["configs/train.json", f"configs/methods/{method}.json"]


def stop_after_an_epoch(workflow: ConfigWorkflow) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    workflow.trainer.add_event_handler(Events.EPOCH_COMPLETED, interrupt)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("distillation") / "images"


@pytest.fixture
def train(images: Path, run_here: Callable[..., None]) -> Callable[..., None]:
    """Train a method on small images into a folder."""

    def run(method: str, output: Path, *arguments: Any, split: Any = SPLIT, **overrides: Any) -> None:
        own = {"dataset_dir": images, "output_dir": output, "split": split}
        run_here({**SMALL, **own, **overrides}, configs(method), *arguments)

    return run


@pytest.mark.parametrize("method", METHODS)
def test_a_later_task_stopped_on_the_way_ends_with_the_weights_of_one_run(
    method: str, train: Callable[..., None], weights_digest: Callable[[Path], str], tmp_path: Path
) -> None:
    later = {"split": SPLIT[2:], "previous": tmp_path / "earlier"}
    train(method, tmp_path / "whole")
    train(method, tmp_path / "earlier", split=SPLIT[:2])
    with pytest.raises(KeyboardInterrupt):
        train(method, tmp_path / "later", stop_after_an_epoch, **later)
    assert torch.load(tmp_path / "later/epoch.pt", weights_only=True)["epoch"] == 1
    train(method, tmp_path / "later", **later)
    for name in ("model.pt", "checkpoint.pt"):
        assert weights_digest(tmp_path / "later" / name) == weights_digest(tmp_path / "whole" / name), name
    found = json.loads((tmp_path / "whole/metrics.json").read_text())
    assert [len(task["classes"]) for task in found["tasks"]] == [2, 1, 2]
    assert ("softmax_accuracy" in found) == (method == "icarl")
    description = json.loads((tmp_path / "whole/network.json").read_text())
    assert (description["adapter"], description["branches"]) == (None, ["backbone"])
    assert load_classifier(tmp_path / "whole")(torch.zeros(2, 3, 33, 33)).shape == (2, 5)


@pytest.mark.parametrize(("method", "least"), [("icarl", 5), ("wa", 5), ("bic", 10)])
def test_without_a_memory_they_are_refused_before_training(
    method: str, least: int, images: Path, refusal: Callable[..., str], tmp_path: Path
) -> None:
    own = {"dataset_dir": images, "output_dir": tmp_path / "run", "split": SPLIT, "memory_size": 0}
    last = refusal({**SMALL, **own}, configs(method))
    assert f"stage training needs a memory, but memory_size is 0: use at least {least}" in last


@pytest.mark.parametrize("method", ["icarl", "wa", "dynammo_lora"])
def test_one_image_a_class_is_enough_for_all_but_bic(method: str, train: Callable[..., None], tmp_path: Path) -> None:
    train(method, tmp_path / "run", limit=1, memory_size=5, adapter_epochs=1, split=[SPLIT[0], SPLIT[2]])
    assert len(json.loads((tmp_path / "run/metrics.json").read_text())["accuracies"]) == 2


def test_bic_says_that_it_needs_two_images_a_class(images: Path, refusal: Callable[..., str], tmp_path: Path) -> None:
    own = {"dataset_dir": images, "output_dir": tmp_path / "run", "split": SPLIT, "limit": 1}
    last = refusal({**SMALL, **own}, configs("bic"))
    assert "class clusters/nests of task" in last
    assert "has a single training image: BiC learns from one and holds one out" in last
