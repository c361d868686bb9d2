"""Evaluating the model of a task: which model, on which images, and what is written."""

from __future__ import annotations

import csv
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine

from scripts.errors import UserError
from scripts.inference import ClinicalReport, evaluation_items


@dataclass
class Learnt:
    name: str
    test: list[dict[str, Any]] = field(default_factory=list)


TASKS = [
    Learnt("first", [{"image": "a", "label": 0}, {"image": "b", "label": 1}]),
    Learnt("second", [{"image": "c", "label": 2}]),
    Learnt("third", [{"image": "d", "label": 3}]),
]


def test_images_of_later_tasks_are_left_out() -> None:
    items = evaluation_items(TASKS, 3, lambda task: True)
    assert [item["image"] for item in items] == ["a", "b", "c"]


def test_a_task_whose_images_are_gone_is_left_out_and_named(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        items = evaluation_items(TASKS, 4, lambda task: task.name != "first")
    assert [item["image"] for item in items] == ["c", "d"]
    assert [record.message for record in caplog.records] == ["Not tested: first, some of its test images are gone."]


def test_no_test_image_at_all_is_an_error() -> None:
    with pytest.raises(UserError, match="test images of all tasks are gone"):
        evaluation_items(TASKS, 4, lambda task: False)


def read(path: Path) -> list[list[str]]:
    with open(path, newline="") as file:
        return list(csv.reader(file))


def test_the_report_counts_what_the_network_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    labels = torch.tensor([0, 0, 0, 1, 1, 2])
    predicted = torch.tensor([0, 0, 1, 1, 1, 0])
    logits = torch.nn.functional.one_hot(predicted, 3).float()
    engine = Engine(lambda engine, batch: {"label": labels[batch], "pred": logits[batch]})
    ClinicalReport(str(tmp_path), ["a", "b", "c"]).attach(engine)
    with caplog.at_level(logging.INFO, logger="scripts.inference.evaluation"):
        for _ in range(2):  # the second run replaces the first
            engine.run([slice(0, 4), slice(4, 6)])
    assert read(tmp_path / "confusion_matrix.csv") == [
        ["true \\ predicted", "a", "b", "c"],
        ["a", "2", "1", "0"],
        ["b", "0", "2", "0"],
        ["c", "1", "0", "0"],
    ]
    header, *rows = read(tmp_path / "classes.csv")
    sensitivity = {row[0]: float(row[header.index("sensitivity")]) for row in rows}
    assert sensitivity == pytest.approx({"a": 2 / 3, "b": 1.0, "c": 0.0})
    assert (tmp_path / "confusion_matrix.png").read_bytes().startswith(b"\x89PNG")
    lines = [record.message for record in caplog.records]
    assert lines[-1].startswith("Accuracy 66.7 %, mean class recall (MCR) 55.6 % on 6 images of 3 classes")


def test_sure_predictions_do_not_tie(tmp_path: Path) -> None:
    # in single precision the softmax of each of these is exactly 1 for class b, which would make its AUROC one half
    logits = torch.tensor([[0.0, 40.0], [0.0, 41.0], [0.0, 42.0], [0.0, 43.0]])
    labels = torch.tensor([0, 0, 1, 1])
    engine = Engine(lambda engine, batch: {"label": labels, "pred": logits})
    ClinicalReport(str(tmp_path), ["a", "b"]).attach(engine)
    engine.run([0])
    header, *rows = read(tmp_path / "classes.csv")
    assert float(rows[0][header.index("auroc")]) == 1.0
