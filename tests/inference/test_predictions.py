"""The results of classifying: one row an image, in order, with every class's probability."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine

from scripts.inference import PredictionWriter

CLASSES = ["set/benign", "set/odd, very"]
PROBABILITIES = {"x/1.png": [0.25, 0.75], "x/2.png": [0.5, 0.5], "y.png": [1.0, 0.0]}


def classify(folder: Path, names: list[str]) -> PredictionWriter:
    """Run an engine over batches of two names, whose output is what `PROBABILITIES` says."""

    def step(engine: Engine, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"pred": torch.tensor(PROBABILITIES[item["name"]])} for item in batch]

    writer = PredictionWriter(str(folder), CLASSES)
    engine = Engine(step)
    writer.attach(engine)
    engine.run([[{"name": name} for name in names[start : start + 2]] for start in range(0, len(names), 2)])
    return writer


def test_the_table_has_a_row_an_image_and_a_column_a_class(tmp_path: Path) -> None:
    classify(tmp_path, list(PROBABILITIES))
    with open(tmp_path / "predictions.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["image", "predicted class", *CLASSES],
        ["x/1.png", CLASSES[1], "0.250000", "0.750000"],
        ["x/2.png", CLASSES[0], "0.500000", "0.500000"],
        ["y.png", CLASSES[0], "1.000000", "0.000000"],
    ]


def test_the_json_says_the_same(tmp_path: Path) -> None:
    classify(tmp_path, list(PROBABILITIES))
    content = json.loads((tmp_path / "predictions.json").read_text())
    assert content["classes"] == CLASSES
    assert content["images"][0] == {
        "image": "x/1.png",
        "predicted_class": CLASSES[1],
        "probabilities": {CLASSES[0]: 0.25, CLASSES[1]: 0.75},
    }
    assert [image["image"] for image in content["images"]] == list(PROBABILITIES)


def test_a_second_run_starts_afresh(tmp_path: Path) -> None:
    writer = classify(tmp_path, list(PROBABILITIES))
    engine = Engine(lambda engine, batch: [{"pred": torch.tensor([0.0, 1.0])}])
    writer.attach(engine)
    engine.run([[{"name": "z.png"}]])
    assert [name for name, _ in writer.rows] == ["z.png"]
