"""Take the models of a run in as versions, each with what it says of its test images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.deploy.inference.classification import ImageClassifier
from scripts.deploy.inference.loading import load_image_classifier
from scripts.deploy.versions.gate import ANSWERS, Answers
from scripts.deploy.versions.store import Version, VersionStore
from scripts.imaging.decoding.reasons import ImageRefused
from scripts.learning.evaluation.report import evaluation_items
from scripts.learning.run_config import DATA, read_run_config, what_matters
from scripts.learning.tasks.labels import require_one_class
from scripts.learning.tasks.record import read_tasks
from scripts.metrics.accuracy_matrix import mean_class_recall
from scripts.metrics.calibration import calibration_error, error_interval
from scripts.model.description import ADVICE
from scripts.model.folder import TASK
from scripts.model.networks import weights_licence
from scripts.utils.errors import UserError
from scripts.utils.files import WEIGHTS
from scripts.utils.sums import file_sha256, read_checked, sha256

METRICS = "metrics.json"
BATCH = 32


def add(store: VersionStore, run: Path) -> str:
    """Take in the model of every task of a run that the store does not hold yet.

    Args:
        store: where versions are kept.
        run: a run's folder, finished or not.

    Returns:
        What was done, a line a version.

    Raises:
        UserError: when the folder holds no run, or its test images are gone.
    """
    folders = sorted(run.glob(f"{TASK}[0-9]*"), key=lambda path: int(path.name.removeprefix(TASK)))
    if not folders:
        raise UserError(f"no trained model in {run}: give a run's folder")
    config = read_run_config(run)
    lines = []
    for folder in folders:
        weights = file_sha256(folder / WEIGHTS)
        known = [version for version in store.versions() if version.record["files"][WEIGHTS] == weights]
        lines.append(f"{folder} is version {(known or [_add_task(store, run, folder, config)])[0].number}.")
    return "\n".join(lines)


def _add_task(store: VersionStore, run: Path, folder: Path, config: Mapping[str, Any]) -> Version:
    classifier = load_image_classifier(folder)
    description = classifier.trained.description
    tested, answers = examine(run, classifier)
    metrics = json.loads((run / METRICS).read_text())
    matrix = metrics["accuracy_matrix"][: len(description["tasks"])]
    calibrated = {entry["task"]: entry for entry in metrics.get("calibration", [])}
    details = {
        "name": classifier.model.name,
        "tasks": description["tasks"],
        "tested": tested,
        "accuracy_matrix": [row[: len(description["tasks"])] for row in matrix],
        "calibration": calibrated.get(description["tasks"][-1]["name"], {}),
        "config": what_matters(config, DATA),
        "licence": weights_licence(config["backbone"], config["weights"]),
    }
    files = read_checked(folder, ADVICE)
    files[ANSWERS] = f"{json.dumps(answers, indent=1)}\n".encode()
    return store.add(files, details, parent_of(description, store.versions()))


def parent_of(description: Mapping[str, Any], versions: Sequence[Version]) -> int | None:
    """Return the newest version whose tasks, and no others, stand before the last one's of ``network.json``."""
    before = description["tasks"][:-1]
    return next((version.number for version in reversed(versions) if version.record["tasks"] == before), None)


def examine(run: Path, classifier: ImageClassifier) -> tuple[dict[str, Any], Answers]:
    """Let a model classify the test images of the classes that it knows.

    Returns:
        Figures, and what it says of each image, by a hash of its reference.

    Raises:
        UserError: when the images of all tasks are gone.
    """
    names = classifier.model.classes
    items = evaluation_items(read_tasks(run), len(names))
    require_one_class(items, "the gate of versions")
    results = classifier.classify_all([item["image"] for item in items], BATCH)
    answers: dict[str, tuple[str, str]] = {}
    labels, scores = list[int](), list[list[float]]()
    for item, result in zip(items, results, strict=True):
        if not isinstance(result, ImageRefused):
            key = sha256(str(item["image"]).encode())
            answers[key] = names[item["label"]], result.predicted_class
            labels.append(item["label"])
            scores.append([result.probabilities[name] for name in names])
    predictions = [max(range(len(row)), key=row.__getitem__) for row in scores]
    tested = {
        "images": {name: labels.count(number) for number, name in enumerate(names)},
        "recalls": recalls(answers, names),
        "mean_class_recall": mean_class_recall(labels, predictions),
        "calibration_error": calibration_error(labels, scores),
        "calibration_interval": error_interval(labels, scores),
        "refused": len(items) - len(answers),
    }
    return tested, answers


def recalls(answers: Answers, names: Sequence[str]) -> dict[str, float | None]:
    """Return the recall of each class, 0..1; ``None`` without images of it."""
    found: dict[str, float | None] = {}
    for name in names:
        right = [predicted == label for label, predicted in answers.values() if label == name]
        found[name] = sum(right) / len(right) if right else None
    return found
