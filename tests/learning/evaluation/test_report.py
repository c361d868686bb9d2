"""Evaluating the model of a task: which model, on which images, and what is written."""

from __future__ import annotations

import csv
import logging
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine

from scripts.learning.evaluation import ClinicalReport, evaluation_items
from scripts.learning.sources import Item
from scripts.learning.tasks import Task
from scripts.utils.errors import UserError


@pytest.fixture
def tasks(tmp_path: Path) -> list[Task]:
    """Three tasks of two, one and one classes, whose test images are there."""
    for name in "abcd":
        (tmp_path / f"{name}.png").touch()
    items = [{"image": str(tmp_path / f"{name}.png"), "label": label} for label, name in enumerate("abcd")]
    parts = {"first": items[:2], "second": items[2:3], "third": items[3:]}
    return [Task(name, tuple(name), own[0]["label"], (), tuple(own)) for name, own in parts.items()]


def names(items: Sequence[Item]) -> list[str]:
    return [Path(item["image"]).stem for item in items]


def test_images_of_later_tasks_are_left_out(tasks: list[Task]) -> None:
    assert names(evaluation_items(tasks, 3)) == ["a", "b", "c"]


def test_a_task_whose_images_are_gone_is_left_out_and_named(
    tasks: list[Task], caplog: pytest.LogCaptureFixture
) -> None:
    Path(tasks[0].test[1]["image"]).unlink()
    with caplog.at_level(logging.WARNING):
        items = evaluation_items(tasks, 4)
    assert names(items) == ["c", "d"]
    assert [record.message for record in caplog.records] == ["Not tested: first, some of its test images are gone."]


def test_no_test_image_at_all_is_an_error(tasks: list[Task]) -> None:
    for task in tasks:
        Path(task.test[0]["image"]).unlink()
    with pytest.raises(UserError, match="test images of all tasks are gone"):
        evaluation_items(tasks, 4)


def read(path: Path) -> list[list[str]]:
    with open(path, newline="") as file:
        return list(csv.reader(file))


def test_the_report_counts_what_the_network_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    labels = torch.tensor([0, 0, 0, 1, 1, 2])
    predicted = torch.tensor([0, 0, 1, 1, 1, 0])
    logits = torch.nn.functional.one_hot(predicted, 3).float()
    engine = Engine(lambda engine, batch: {"label": labels[batch], "pred": logits[batch]})
    ClinicalReport(str(tmp_path), ["a", "b", "c"]).attach(engine)
    with caplog.at_level(logging.INFO, logger="scripts.learning.evaluation.report"):
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
