"""Evaluating any task's model of a finished run on the test images of the tasks it knows."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

CONFIGS = ("configs/train.json", "configs/evaluate.json")
FILES = {"classes.csv", "confusion_matrix.csv", "confusion_matrix.png"}


@pytest.fixture
def run(tmp_path: Path, small_run: Any, linked_copy: Callable[[Path, Path], Path]) -> Path:
    return linked_copy(small_run.output, tmp_path / "run")


def read(path: Path) -> list[list[str]]:
    with open(path, newline="") as file:
        return list(csv.reader(file))


def check_report(run: Path, task: int) -> float:
    """Check what was written of a task's model against the run's own metrics; return the accuracy."""
    folder = run / "evaluation" / f"task_{task}"
    assert {path.name for path in folder.iterdir()} == FILES
    metrics = json.loads((run / "metrics.json").read_text())
    known = [name for learnt in metrics["tasks"][: task + 1] for name in learnt["classes"]]
    header, *rows = read(folder / "confusion_matrix.csv")
    assert header[1:] == [row[0] for row in rows] == known
    counts = np.array([[int(cell) for cell in row[1:]] for row in rows])
    assert counts.sum(axis=1).tolist() == [4] * len(known)
    accuracy = float(np.trace(counts) / counts.sum())
    assert accuracy == pytest.approx(metrics["accuracies"][task])
    header, *rows = read(folder / "classes.csv")
    assert [row[0] for row in rows] == known
    for name in ("sensitivity", "specificity", "auroc"):
        places = [header.index(column) for column in (f"{name}_low", name, f"{name}_high")]
        for row in rows:
            low, value, high = (float(row[place]) for place in places)
            assert 0 <= low <= value <= high <= 1
    recall = np.mean([float(row[header.index("sensitivity")]) for row in rows])
    assert recall == pytest.approx(metrics["mean_class_recalls"][task])
    return accuracy


def test_the_last_model_is_evaluated_by_default(tmp_path: Path, run: Path, bundle_run: Any) -> None:
    # no data set is named: the run knows which images it was tested with
    done = bundle_run(CONFIGS, {"model": run, "device": "cpu"}, cwd=tmp_path)
    accuracy = check_report(run, 3)
    assert f"Accuracy {100 * accuracy:.1f} %, mean class recall (MCR)" in done.stdout + done.stderr


def test_an_earlier_model_is_evaluated_on_the_tasks_it_knows(run: Path, finish_run: Callable[..., None]) -> None:
    finish_run({"model": run, "task": 1, "device": "cpu"}, CONFIGS)
    check_report(run, 1)


def test_a_task_that_was_not_learnt_is_refused(run: Path, refusal: Callable[..., str]) -> None:
    said = refusal({"model": run, "task": 4, "device": "cpu"}, CONFIGS)
    assert said == f"Error: {run} has no model of task 4: choose among 0, 1, 2, 3 (key 'task')"


def test_a_folder_without_a_run_is_refused(tmp_path: Path, refusal: Callable[..., str]) -> None:
    said = refusal({"model": tmp_path, "device": "cpu"}, CONFIGS)
    assert said.startswith(f"Error: no trained model in {tmp_path}: give a run or a model's folder (--model RUN)")
