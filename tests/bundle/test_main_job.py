"""The main job as it is shipped: it forgets less than fine-tuning, on images on which forgetting shows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

MINUTES = 60  # per run, on a machine that does other things
TASKS = 4
WRITTEN = {
    "accuracy.png",
    "accuracy_matrix.csv",
    "accuracy_matrix.png",
    "checkpoint.pt",
    "metrics.json",
    "model.pt",
    "network.json",
    "tasks.json",
    "timing.json",
    *(f"task_{number}/{name}" for number in range(TASKS) for name in ("model.pt", "network.json")),
}
FIGURES = {
    "accuracy_matrix",
    "recall_matrix",
    "average_accuracy",
    "final_accuracy",
    "average_mean_class_recall",
    "final_mean_class_recall",
    "forgetting",
    "backward_transfer",
    "classes",
    "tasks",
    "flops_per_image",
    "parameters",
    "memory_bytes",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("main_job")


@pytest.fixture(scope="module")
def train(folder: Path, finish_run: Any) -> Callable[..., Path]:
    """Run a method with the settings it is shipped with, but for ``overrides``, and return its output folder."""

    def run(method: str, **overrides: Any) -> Path:
        configs = ["configs/train.json", *([] if method == "dynammo" else [f"configs/methods/{method}.yaml"])]
        own = {
            "dataset_dir": folder / "images",
            "output_dir": folder / method,
        }
        finish_run({"device": "cpu", **own, **overrides}, configs, seconds=60 * MINUTES)
        return folder / method

    return run


@pytest.fixture(scope="module")
def dynammo(train: Callable[..., Path]) -> Path:
    return train("dynammo")


@pytest.fixture(scope="module")
def finetune(train: Callable[..., Path]) -> Path:
    return train("finetune", memory_size=0, adapter_epochs=10)


@pytest.fixture(scope="module")
def joint(train: Callable[..., Path]) -> Path:
    return train("joint", adapter_epochs=10)


def figures(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "metrics.json").read_text())
    return content


def test_main_job_writes_all_it_promises(dynammo: Path, folder: Path) -> None:
    files = {str(path.relative_to(dynammo)) for path in dynammo.rglob("*") if path.is_file()}
    curves = {name for name in files if name.startswith("tensorboard/")}
    assert files - curves == WRITTEN
    assert len(curves) >= TASKS
    assert figures(dynammo).keys() >= FIGURES
    for name in ("model.pt", "network.json"):
        assert (folder / "dynammo_model" / name).read_bytes() == (dynammo / name).read_bytes()


def test_main_job_learns_every_task(dynammo: Path) -> None:
    found = figures(dynammo)
    assert len(found["classes"]) == 2 * TASKS
    for number, row in enumerate(found["accuracy_matrix"]):
        assert all(value is not None for value in row[: number + 1])
        assert row[number] > 1 / (2 * number + 2) + 0.1, f"task {number + 1} is hardly better than a guess"


def test_finetuning_without_memory_forgets(finetune: Path) -> None:
    assert figures(finetune)["final_accuracy"] < 0.45
    assert figures(finetune)["forgetting"] > 0.5


def test_joint_training_shows_what_the_images_allow(joint: Path) -> None:
    assert figures(joint)["final_accuracy"] > 0.9


def test_dynammo_stands_clearly_above_finetuning(dynammo: Path, finetune: Path) -> None:
    assert figures(dynammo)["final_accuracy"] > figures(finetune)["final_accuracy"] + 0.2
    assert figures(dynammo)["forgetting"] < figures(finetune)["forgetting"] / 2
