"""A run of inference.json: what the network says of each image reaches the folder of results."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine
from monai.data import Dataset

from scripts.deploy.inference import PredictionWriter, ResultFolder
from scripts.model.decisions.results import ModelIdentity

CLASSES = ("set/benign", "set/odd, very")
PROBABILITIES = {"x/1.png": [0.25, 0.75], "x/2.png": [0.5, 0.5], "y.png": [1.0, 0.0], "z.png": [float("nan"), 0.0]}


def classify(folder: Path, names: list[str]) -> PredictionWriter:
    """Run an engine over batches of two names, whose output is what `PROBABILITIES` says."""

    def step(engine: Engine, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"pred": torch.tensor(PROBABILITIES[item["name"]])} for item in batch]

    dataset = Dataset([{"name": name, "image": f"/data/{name}"} for name in names])
    results = ResultFolder(str(folder), ModelIdentity("a", "task_0", "0" * 64, CLASSES))
    writer = PredictionWriter(results, dataset)
    engine = Engine(step)
    writer.attach(engine)
    results.start()
    items = [{"name": name, "image": torch.zeros(3, 4, 4)} for name in names]
    engine.run([items[start : start + 2] for start in range(0, len(items), 2)])
    return writer


def test_every_image_of_every_batch_is_in_the_table(tmp_path: Path) -> None:
    classify(tmp_path, list(PROBABILITIES)[:3])
    with open(tmp_path / "predictions.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["image", "predicted class", "indeterminate", *CLASSES, "doubt"],
        ["x/1.png", CLASSES[1], "false", "0.250000", "0.750000", ""],
        ["x/2.png", CLASSES[0], "false", "0.500000", "0.500000", ""],
        ["y.png", CLASSES[0], "false", "1.000000", "0.000000", ""],
    ]


def test_an_answer_that_is_no_number_is_refused_and_the_others_stay(tmp_path: Path) -> None:
    classify(tmp_path, list(PROBABILITIES))
    content = json.loads((tmp_path / "predictions.json").read_text())
    assert [image["image"] for image in content["images"]] == ["x/1.png", "x/2.png", "y.png"]
    assert [(image["image"], image["code"]) for image in content["refused"]] == [("z.png", "non_finite")]
