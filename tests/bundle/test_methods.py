"""Every method with every data set, backbone and division into tasks, and all of them in one comparison."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from scripts.commands.configs import (
    OF_TRANSFORMERS,
    TRAIN,
    data_files,
    known_configs,
    known_methods,
    method_files,
    parse_config,
    published_files,
)
from scripts.learning.engines import Stage
from scripts.model.folder import TrainedModel

BUNDLE = Path(__file__).resolve().parents[2] / "bundle"
METHODS = known_methods()
DATA_SETS = list(known_configs("datasets"))
# the smallest image or volume that an adapter can stand in
BACKBONES = {
    "resnet18": 33,
    "resnet34": 33,
    "resnet50": 33,
    "mobilenet_v2": 65,
    "efficientnet_b0": 65,
    "resnet10_3d": 17,
    "resnet18_3d": 17,
}
QUICK = ("resnet18", "mobilenet_v2", "efficientnet_b0")
# two tasks of unequal size, the first of a single class
IMAGES = [["clusters/nests"], ["fibres/parallel", "cells/large"]]
SMALL: dict[str, Any] = {
    "source#train_per_class": 4,
    "source#test_per_class": 2,
    "source#val_per_class": 2,
    "split": IMAGES,
    "backbone_epochs": 1,
    "adapter_epochs": 1,
    "finetune_epochs": 1,
    "memory_size": 6,
    "batch_size": 4,
    "device": "cpu",
}


@pytest.mark.parametrize("method", [*METHODS, *OF_TRANSFORMERS])
def test_a_method_can_be_read_over_every_data_set(method: str) -> None:
    for data in DATA_SETS:
        before = parse_config([TRAIN, *data_files(data)], []).get("data")
        parser = parse_config([TRAIN, *data_files(data), *method_files(method), *published_files(data, method)], [])
        assert parser.get("data") == before
        parser["output_dir#data"] = "x"
        assert parser.get_parsed_content("output_dir").endswith(f"x-{method}-{parser.get('backbone')}-s1")
        parser.update({"balanced_finetuning#features": None, "adapter_tuning": None})  # which would build the network
        parser.parse(reset=True)
        assert parser.get_parsed_content("optimizer#lr") > 0
        stages = parser.get_parsed_content("stages")
        assert all(callable(stage.loss) for stage in stages if isinstance(stage, Stage))
        names = [
            handler["_target_"].removeprefix("scripts.learning.handlers.") for handler in parser.get("train#handlers")
        ]
        assert len(names) == len(set(names))


def learn(method: str, backbone: str, run_here: Callable[..., None], folder: Path, **own: Any) -> dict[str, Any]:
    overlays: list[str | Path] = ["configs/train.json", *method_files(method)]
    settings = {**SMALL, "dataset_dir": folder / "images", "output_dir": folder / "run"}
    settings |= {"backbone": backbone, "image_size": BACKBONES[backbone], **own}
    if backbone.endswith("_3d"):
        overlays[1:1] = ["configs/networks/resnet18_3d.yaml", "configs/datasets/generated_volumes.yaml"]
        settings |= {"source#train_per_class": 4, "source#test_per_class": 2, "split": [1, 2, 3]}
        settings["memory_size"] = 12  # BiC needs two of each of the six classes
        settings.pop("source#val_per_class")
    if "ridge" in method or method == "acmap":
        settings["ridge#least_images"] = 1
    run_here(settings, overlays)
    return json.loads((folder / "run" / "metrics.json").read_text())


# what merges on the quick backbones, what does not on one; all on all of them below
@pytest.mark.parametrize(
    ("method", "backbone"), [*(("dynammo", name) for name in QUICK), ("acl", "resnet18"), ("podnet", "mobilenet_v2")]
)
def test_a_method_learns_unequal_tasks_on_a_backbone(
    method: str, backbone: str, run_here: Callable[..., None], tmp_path: Path
) -> None:
    found = learn(method, backbone, run_here, tmp_path)
    assert found["final_accuracy"] is not None
    assert found["task_incremental_final_accuracy"] >= found["final_accuracy"]
    classifier = TrainedModel.open(tmp_path / "run").network
    side = BACKBONES[backbone]
    shape = (2, 1, side, side, side) if backbone.endswith("_3d") else (2, 3, side, side)
    assert classifier(torch.zeros(shape)).shape == (2, len(found["classes"]))


@pytest.mark.slow
@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_on_every_backbone(
    method: str, backbone: str, run_here: Callable[..., None], tmp_path: Path
) -> None:
    assert learn(method, backbone, run_here, tmp_path)["final_accuracy"] is not None


@pytest.mark.slow
def test_one_command_compares_all_methods(python: Callable[..., Any], tmp_path: Path) -> None:
    images, output = tmp_path / "images", tmp_path / "out"
    command = ["-m", "scripts.commands", "compare", "generated_small", "all"]
    command += ["--adapter_epochs", "1", "--finetune_epochs", "2", "--backbone_epochs", "1"]
    command += [f"--source#{part}_per_class={count}" for part, count in (("train", 8), ("val", 4), ("test", 4))]
    command += ["--seeds", "1", "--jobs", "2", "--threads", "1", "--output", str(output), "--dataset_dir", str(images)]
    done = python(command, seconds=2400)
    assert done.returncode == 0, done.stderr
    with (output / "comparison.csv").open() as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    assert sorted(rows) == METHODS
    for method, row in rows.items():
        assert float(row["task_incremental_final_accuracy_mean"]) >= float(row["final_accuracy_mean"]), method
    # the plain backbone's cost for all but what keeps adapters or whole backbones
    cost = {method: float(row["flops_per_image_mean"]) for method, row in rows.items()}
    assert cost["der_expandable"] > 2.9 * cost["finetune+without_memory"]
    assert cost["acl"] > cost["dynammo"] > cost["finetune+without_memory"]
    assert float(rows["finetune+without_memory"]["memory_bytes_mean"]) == 0
