"""What a run leaves in its folder."""

from __future__ import annotations

import csv
import json
import logging
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ignite.engine import Engine
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from scripts.learning.engines.events import ContinualEvents
from scripts.learning.handlers.report import ReportHandler, collect_metrics, table
from scripts.learning.tasks.task import Task
from scripts.metrics.accuracy_matrix import AccuracyMatrix
from scripts.metrics.record import RunRecord
from scripts.utils.errors import UserError
from scripts.utils.running import RECORDED

SIZES = [2, 3, 1]
FIGURES = {"flops_per_image": 5_230_000_000, "parameters": 12_801_348, "memory_bytes": 3 * 2**20}
OTHERS = {
    **FIGURES,
    "task_identification_accuracy": 0.75,
    "open_set": {"auroc": 0.875, "fpr95": 0.5, "average_precision": 0.25},
}
KEYS = {
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
    "accuracies",
    "mean_class_recalls",
}


def make_tasks() -> list[Task]:
    names = ["skin, pale", "lung", "a_task_with_quite_a_long_name"]
    firsts = np.cumsum([0, *SIZES]).tolist()
    return [
        Task(name, tuple(f"{name} {number}" for number in range(size)), first, (), ())
        for name, size, first in zip(names, SIZES, firsts, strict=False)
    ]


def make_matrix(stages: int = 3, gone: tuple[int, ...] = ()) -> AccuracyMatrix:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(6), 31)
    matrix = AccuracyMatrix()
    for stage in range(stages):
        seen = sum(SIZES[: stage + 1])
        predictions = np.where(rng.random(186) < 0.7, labels, rng.integers(0, seen, 186))
        kept = ~np.isin(labels, gone if stage == stages - 1 else ())
        matrix.update(labels[kept], predictions[kept], SIZES[: stage + 1])
    return matrix


def write(folder: Path, matrix: AccuracyMatrix, figures: dict[str, Any]) -> dict[str, Any]:
    return ReportHandler(str(folder), record_of(matrix, figures)).write(make_tasks())


def record_of(matrix: AccuracyMatrix, figures: dict[str, Any]) -> RunRecord:
    record = RunRecord()
    record.matrix, record.figures = matrix, figures
    return record


def stored(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return content


def test_metrics_hold_the_promised_keys_unrounded(tmp_path: Path) -> None:
    matrix = make_matrix()
    returned = write(tmp_path, matrix, FIGURES)
    metrics = stored(tmp_path)
    assert set(metrics) == KEYS
    assert metrics == returned
    assert list(metrics) == sorted(metrics)
    for name in KEYS - {"classes", "tasks", *FIGURES}:
        assert metrics[name] == getattr(matrix, name)
    assert metrics["classes"] == [name for task in make_tasks() for name in task.classes]
    assert metrics["tasks"] == [{"name": task.name, "classes": list(task.classes)} for task in make_tasks()]
    assert {name: metrics[name] for name in FIGURES} == FIGURES


def test_others_heads_add_their_figures(tmp_path: Path) -> None:
    write(tmp_path, make_matrix(), OTHERS)
    metrics = stored(tmp_path)
    added = ("task_identification_accuracy", "open_set_auroc", "open_set_fpr95", "open_set_average_precision")
    assert set(metrics) == KEYS | set(added)
    assert [metrics[name] for name in added] == [0.75, 0.875, 0.5, 0.25]


def test_without_unknown_classes_the_open_set_figures_are_null() -> None:
    metrics = collect_metrics(make_matrix(1), make_tasks(), {"open_set": None})
    assert [value for name, value in metrics.items() if name.startswith("open_set")] == [None] * 3


def test_tasks_not_learnt_yet_are_left_out() -> None:
    metrics = collect_metrics(make_matrix(2), make_tasks(), FIGURES)
    assert [task["name"] for task in metrics["tasks"]] == ["skin, pale", "lung"]
    assert len(metrics["classes"]) == 5
    with pytest.raises(ValueError, match="3 evaluations of 2 tasks"):
        collect_metrics(make_matrix(3), make_tasks()[:2], FIGURES)


def test_two_writes_are_equal_byte_for_byte(tmp_path: Path) -> None:
    for name in "ab":
        write(tmp_path / name, make_matrix(), OTHERS)
    files = sorted(path.name for path in (tmp_path / "a").iterdir() if path.is_file())
    assert files == ["accuracy.png", "accuracy_matrix.csv", "accuracy_matrix.png", "metrics.json"]
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_csv_repeats_the_matrix_with_names(tmp_path: Path) -> None:
    matrix = make_matrix(gone=(0, 1))
    write(tmp_path, matrix, FIGURES)
    with open(tmp_path / "accuracy_matrix.csv", newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    names = [task.name for task in make_tasks()]
    assert header == ["after learning", *names]
    assert [row[0] for row in rows] == names
    assert [[float(cell) if cell else None for cell in row[1:]] for row in rows] == matrix.accuracy_matrix
    assert rows[2][1] == ""


def test_pictures_open(tmp_path: Path) -> None:
    write(tmp_path, make_matrix(), FIGURES)
    for name in ("accuracy.png", "accuracy_matrix.png"):
        with Image.open(tmp_path / name) as picture:
            picture.load()
            assert min(picture.size) >= 400


def test_curves_have_a_point_a_task(tmp_path: Path) -> None:
    record = RunRecord()
    report = ReportHandler(str(tmp_path), record)
    matrices = [make_matrix(stages) for stages in (1, 2, 3)]
    for matrix in matrices:
        record.matrix = matrix
        report.write(make_tasks())
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    curves = {
        "accuracy": "final_accuracy",
        "mean_class_recall": "final_mean_class_recall",
        "average_accuracy": "average_accuracy",
        "average_mean_class_recall": "average_mean_class_recall",
        "forgetting": "forgetting",
    }
    assert set(events.Tags()["scalars"]) == set(curves)
    for curve, figure in curves.items():
        points = [(step, getattr(matrix, figure)) for step, matrix in enumerate(matrices, start=1)]
        expected = [(step, value) for step, value in points if value is not None]
        assert [event.step for event in events.Scalars(curve)] == [step for step, _ in expected]
        assert [event.value for event in events.Scalars(curve)] == pytest.approx([value for _, value in expected])


def test_a_run_that_goes_on_shows_every_point_once(tmp_path: Path) -> None:
    """What a killed process has written is replaced by what was saved; epochs, tasks and pictures are there once."""
    record = record_of(make_matrix(2), FIGURES)
    record.confusions = [[[3, 1], [0, 4]], np.diag([3, 3, 3, 3, 3]).tolist()]
    record.history = [row_of("skin, pale", epoch) for epoch in (1, 2)]
    killed = ReportHandler(str(tmp_path), record)
    killed.write(make_tasks())
    record.history += [row_of("lung", 1), row_of("lung", 2)]
    killed.tensorboard.update()
    saved = RunRecord()
    saved.load_state_dict({**record.state_dict(), "history": record.history[:3]})
    again = ReportHandler(str(tmp_path), saved)
    saved.history.append(row_of("lung", 2, loss=0.25))
    again.write(make_tasks())
    events = EventAccumulator(str(tmp_path / "tensorboard"), {"images": 0, "scalars": 0})
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss/training")] == [
        (1, 1),
        (2, 1),
        (3, 1),
        (4, 0.25),
    ]
    assert [event.step for event in events.Scalars("accuracy")] == [1, 2]
    for name in ("accuracy_matrix", "accuracy", "confusion_matrix"):
        assert [event.step for event in events.Images(name)] == [1, 2]
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1
    with open(tmp_path / "history.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["task"], row["epoch"], row["loss"]) for row in rows][-2:] == [
        ("lung", "1", "1.0"),
        ("lung", "2", "0.25"),
    ]
    assert rows[0]["validation_accuracy"] == ""


def row_of(task: str, epoch: int, loss: float = 1.0) -> dict[str, Any]:
    return {
        "task": task,
        "stage": "training",
        "epoch": epoch,
        "loss": loss,
        "learning_rate": 0.1,
        "validation_accuracy": None,
    }


def test_the_settings_are_compared_in_tensorboard(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps({"seed": 3, "optimizer": {"lr": 0.5, "_target_": "$x"}, RECORDED: {}})
    )
    write(tmp_path, make_matrix(), FIGURES)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    settings = HParamsPluginData.FromString(content).session_start_info.hparams
    assert {name: value.number_value for name, value in settings.items()} == {"seed": 3, "optimizer#lr": 0.5}


@pytest.mark.parametrize("are_scans", [True, False])
def test_training_images_are_shown_unless_they_are_scans(
    are_scans: bool, tmp_path: Path, tiny: SimpleNamespace, request: pytest.FixtureRequest
) -> None:
    record = RunRecord()
    record.matrix.update([0, 1], [0, 1], [2])
    (task, *_) = tiny.tasks(tmp_path)
    if are_scans:
        reference = request.getfixturevalue("scans").dicom(tmp_path / "a", np.zeros((33, 33), np.uint16))
        task = replace(task, train=({"image": reference, "label": 0},))
    ReportHandler(str(tmp_path / "run"), record).write([task])
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert ("contact_sheet" in events.Tags()["images"]) != are_scans


def test_table_shows_names_and_per_cent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    matrix = make_matrix(gone=(0, 1))
    report = ReportHandler(str(tmp_path), record_of(matrix, OTHERS))
    metrics = report.write(make_tasks())
    with caplog.at_level(logging.INFO, logger="scripts.learning.handlers.report"):
        report.log_table()
    text = table(metrics)
    said = caplog.records[-1].getMessage()
    assert said.startswith(f"\n{text}\n") and "Next: " in said
    lines = text.splitlines()
    for number, task in enumerate(make_tasks()):
        line = next(line for line in lines if line.lstrip().startswith(f"{number + 1}  {task.name}"))
        row = [
            *matrix.accuracy_matrix[number][: number + 1],
            matrix.accuracies[number],
            matrix.mean_class_recalls[number],
        ]
        cells = line.split(task.name)[1].split()
        assert cells == ["-" if value is None else f"{100 * value:.1f}" for value in row]
    summary = dict(
        line.rsplit("  ", 1) for line in lines if line.startswith(("final acc", "open-set AU", "FLOPs", "kept"))
    )
    assert [value.strip() for value in summary.values()] == ["-", "87.5 %", "5.23 G", "3.00 MiB"]


def test_table_of_a_folder_without_a_run_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"cannot read {tmp_path}/metrics.json"):
        ReportHandler(str(tmp_path), RunRecord()).log_table()


def test_timing_sums_stages_by_task(tmp_path: Path) -> None:
    stages = [
        {"task": "a", "stage": "adapter_tuning", "seconds": 2.5},
        {"task": "b", "stage": "adapter_tuning", "seconds": 1.0},
        {"task": "b", "stage": "balanced_finetuning", "seconds": 0.5},
    ]
    ReportHandler(str(tmp_path), RunRecord()).write_timing(stages)
    timing = json.loads((tmp_path / "timing.json").read_text())
    assert timing["stages"] == stages
    assert timing["tasks"] == [{"task": "a", "seconds": 2.5}, {"task": "b", "seconds": 1.5}]
    assert timing["seconds"] == 4.0
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    assert 0.5 * resident < timing["peak_memory_bytes"] < 100 * resident


def test_a_folder_that_cannot_be_written_is_a_clear_error_and_loses_nothing(tmp_path: Path) -> None:
    write(tmp_path, make_matrix(2), FIGURES)
    before = (tmp_path / "metrics.json").read_bytes()
    (tmp_path / ".metrics.json.tmp").mkdir()  # nothing can be written in its place, whoever runs the test
    with pytest.raises(UserError, match=f"cannot write {tmp_path}/metrics.json"):
        write(tmp_path, make_matrix(3), FIGURES)
    assert (tmp_path / "metrics.json").read_bytes() == before


def test_curves_that_cannot_be_written_are_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").write_text("a file where the folder belongs")
    with pytest.raises(UserError, match=f"cannot write {tmp_path}/tensorboard"):
        write(tmp_path, make_matrix(), FIGURES)
    assert not (tmp_path / "metrics.json").exists()


@pytest.mark.parametrize("rank", [0, 1])
def test_the_first_rank_writes_after_an_evaluation(rank: int, tmp_path: Path) -> None:
    record = RunRecord()
    record.matrix = make_matrix(2)
    record.figures = dict(FIGURES)
    record.stages = [{"task": "lung", "stage": "adapter_tuning", "seconds": 1.0}]
    engine: Any = Engine(lambda engine, batch: None)
    engine.register_events(*ContinualEvents)
    engine.tasks, engine.state.rank = make_tasks(), rank
    ReportHandler(str(tmp_path), record).attach(engine)
    engine.fire_event(ContinualEvents.TASK_EVALUATED)
    assert (tmp_path / "metrics.json").exists() == (tmp_path / "timing.json").exists() == (rank == 0)
    if rank == 0:
        assert stored(tmp_path) == collect_metrics(record.matrix, make_tasks(), FIGURES)


def test_the_table_is_shown_at_the_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    report = ReportHandler(str(tmp_path), record_of(make_matrix(), FIGURES))
    metrics = report.write(make_tasks())
    engine: Any = Engine(lambda engine, batch: None)
    engine.register_events(*ContinualEvents)
    engine.state.rank = 0
    report.attach(engine)
    with caplog.at_level(logging.INFO, logger="scripts.learning.handlers.report"):
        engine.fire_event(ContinualEvents.RUN_COMPLETED)
    assert table(metrics) in caplog.text
