"""Volumes from end to end: learnt over three tasks, evaluated, packaged, and classified by the unpacked bundle."""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import load_net_with_metadata

from scripts.commands.app import main
from scripts.learning.sources.generated_volumes import SHAPES, draw_volume
from scripts.model.folder import TrainedModel

BUNDLE = Path(__file__).resolve().parents[2] / "bundle"
CONFIGS = ("configs/train.json", "configs/networks/resnet18_3d.yaml", "configs/datasets/generated_volumes.yaml")
# the smaller backbone, adapters at two sites, volumes of less than half their side: about 20 seconds
TINY: dict[str, Any] = {
    "backbone": "resnet10_3d",
    "network_def#sites": ["layer2", "layer3"],
    "image_size": 12,
    "source#train_per_class": 32,
    "source#test_per_class": 16,
    "backbone_epochs": 6,
    "adapter_epochs": 2,
    "finetune_epochs": 8,
    "optimizer#lr": 0.02,
    "balanced_finetuning#optimizer#lr": 0.02,
    "memory_size": 60,
    "batch_size": 8,
    "device": "cpu",
}
# Run in the folder that holds the unpacked bundle: all of it with the code and the configs that were packed.
USE = """
import sys
import monai.bundle as bundle
folder, volumes = sys.argv[1:]
sys.path.insert(0, folder)
inference, torchscript, metadata = (f"{folder}/configs/{n}.json" for n in ("inference", "torchscript", "metadata"))
bundle.run(config_file=inference, dataset_dir=volumes, device="cpu")
bundle.verify_net_in_out("network_def", meta_file=metadata, config_file=inference, device="cpu")
bundle.ckpt_export("network_def", filepath=f"{folder}/models/model.ts", config_file=torchscript, bundle_root=folder)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, finish_run: Callable[..., None]) -> Path:
    """The folder of a finished run on generated volumes."""
    folder = tmp_path_factory.mktemp("volumes")
    paths = {"dataset_dir": folder / "data", "output_dir": folder / "run"}
    finish_run({**TINY, **paths}, CONFIGS)
    return folder / "run"


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a volume of each class, and a file that is none."""
    folder = tmp_path_factory.mktemp("folder")
    for shape in SHAPES:
        np.save(folder / f"{shape}.npy", draw_volume(shape, 1, 1, 0))
    np.save(folder / "flat.npy", np.zeros((28, 28), np.uint8))
    return folder


@pytest.fixture(scope="module")
def unpacked(run: Path, volumes: Path, tmp_path_factory: pytest.TempPathFactory, python: Callable[..., Any]) -> Path:
    """The packaged run, unpacked elsewhere and used there."""
    folder = tmp_path_factory.mktemp("elsewhere")
    assert main(["package", str(run), str(folder / "solids.zip")]) == 0
    with zipfile.ZipFile(folder / "solids.zip") as archive:
        archive.extractall(folder)
    used = python(["-c", USE, folder / "solids", volumes], folder)
    assert used.returncode == 0, used.stdout + used.stderr
    return folder / "solids"


def test_old_tasks_are_known_better_than_by_chance(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    assert [name for task in metrics["tasks"] for name in task["classes"]] == list(SHAPES)
    old = metrics["accuracy_matrix"][2][:2]
    assert sum(old) / 2 > 2 / 6
    assert metrics["memory_bytes"] > 60 * 28**3


def test_a_run_of_volumes_is_evaluated(run: Path, finish_run: Callable[..., None]) -> None:
    finish_run({"model": run, "device": "cpu"}, ("configs/train.json", "configs/evaluate.json"))
    with open(run / "evaluation" / "task_2" / "confusion_matrix.csv", newline="") as file:
        counts = np.array([[int(cell) for cell in row[1:]] for row in list(csv.reader(file))[1:]])
    accuracy = json.loads((run / "metrics.json").read_text())["final_accuracy"]
    assert np.trace(counts) / counts.sum() == pytest.approx(accuracy)


def test_a_folder_of_volumes_is_classified_as_the_network_does(unpacked: Path, volumes: Path) -> None:
    output = unpacked.parent / "eval"  # below the folder that it was used in
    with open(output / "predictions.csv", newline="") as file:
        rows = list(csv.reader(file))[1:]
    with open(output / "refused.csv", newline="") as file:
        assert [row[0] for row in csv.reader(file)] == ["image", "flat.npy"]
    assert [row[0] for row in rows] == sorted(f"{shape}.npy" for shape in SHAPES)
    parser = ConfigParser()
    parser.read_config([str(BUNDLE / path) for path in CONFIGS])
    parser.update({"image": TrainedModel.open(unpacked / "models").image})
    prepare = parser.get_parsed_content("validate#preprocessing")  # as in training
    batch = torch.stack([torch.as_tensor(prepare({"image": str(volumes / row[0])})["image"]) for row in rows])
    with torch.no_grad():
        expected = TrainedModel.open(unpacked / "models").network(batch).softmax(1)
    assert torch.tensor([[float(cell) for cell in row[3:-1]] for row in rows]).allclose(expected, atol=2e-6)


def test_torchscript_of_volumes_is_used_without_the_bundle(unpacked: Path, volumes: Path) -> None:
    exported, _, extra = load_net_with_metadata(
        str(unpacked / "models" / "model.ts"), more_extra_files=["torchscript.json"]
    )
    config = json.loads(extra["torchscript.json"])
    parts = {"preprocessing": config["preprocessing"]}
    assert "scripts." not in json.dumps(parts)
    volume = ConfigParser(parts).get_parsed_content("preprocessing")({"image": str(volumes / "cube.npy")})["image"]
    batch = torch.as_tensor(volume)[None]
    with torch.no_grad():
        assert exported.eval()(batch).allclose(TrainedModel.open(unpacked / "models").network(batch), atol=1e-4)
