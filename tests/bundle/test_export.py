"""A finished run is exported by the config that is shipped, and the edge agrees with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scripts.deploy.edge.classifier import EdgeClassifier

CONFIGS = ("configs/train.json", "configs/export.json")


@pytest.fixture
def run(tmp_path: Path, small_run: Any, linked_copy: Callable[[Path, Path], Path]) -> Path:
    return linked_copy(small_run.output, tmp_path / "run")


def test_the_last_model_is_exported_with_the_images_at_hand(run: Path, small_run: Any, bundle_run: Any) -> None:
    keys = {**small_run.overrides, "model": run, "dataset_dir": small_run.dataset, "calibration_images": 20}
    done = bundle_run(CONFIGS, {**keys, "largest_drop": 1.0})
    assert "agrees with torch" in done.stdout + done.stderr
    assert not (run / "export/model.pruned.onnx").exists()
    figures = json.loads((run / "export/export.json").read_text())
    final = json.loads((run / "metrics.json").read_text())
    assert figures["model.onnx"]["accuracy"] == pytest.approx(final["final_accuracy"])
    edge = EdgeClassifier(run / "export/model.int8.onnx")
    image = next(small_run.dataset.glob("Pathology16/*/test/*/*.png"))
    known = [name for task in final["tasks"] for name in task["classes"]]
    assert list(edge.classify(str(image))["probabilities"]) == known


@pytest.mark.slow
def test_a_pruned_model_has_learnt_from_the_images_at_hand(run: Path, small_run: Any, bundle_run: Any) -> None:
    keys = {**small_run.overrides, "model": run, "dataset_dir": small_run.dataset, "calibration_images": 20}
    done = bundle_run(CONFIGS, {**keys, "largest_drop": 1.0, "pruning": 0.5, "distillation_epochs": 1, "task": 1})
    assert "epoch 1 of 1" in done.stdout + done.stderr
    figures = json.loads((run / "task_1/export/export.json").read_text())
    assert figures["model.pruned.onnx"]["gflops"] < figures["model.onnx"]["gflops"]
    assert EdgeClassifier(run / "task_1/export/model.pruned.onnx").identity.classes


def test_a_task_that_was_not_learnt_is_refused(run: Path, refusal: Callable[..., str]) -> None:
    said = refusal({"model": run, "task": 4, "device": "cpu"}, CONFIGS)
    assert said == f"Error: {run} has no model of task 4: choose among 0, 1, 2, 3 (key 'task')"
