"""One line a stage, and its seconds."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from scripts.learning.handlers import ProgressHandler
from scripts.learning.handlers.progress import BETWEEN, PAUSE
from scripts.learning.handlers.time_left import passes
from scripts.learning.memory import ExemplarMemory
from scripts.metrics import RunRecord
from scripts.utils.words import duration


def test_each_stage_is_one_line(tmp_path: Path, tiny: SimpleNamespace, caplog: pytest.LogCaptureFixture) -> None:
    record = RunRecord()
    stages = [tiny.stage(epochs=2), tiny.stage("adapter_tuning")]
    trainer = tiny.trainer(tiny.network(), tiny.tasks(tmp_path), stages, [ProgressHandler(record)])
    with caplog.at_level(logging.INFO, logger="scripts.learning.handlers.progress"):
        trainer.run()
    own = [entry.getMessage() for entry in caplog.records if entry.name == "scripts.learning.handlers.progress"]
    lines = [line for line in own if not line.endswith(" left")]
    assert len(lines) == 4
    assert lines[0].startswith("Task 1/2 set0, training: 2 epochs of 12 images, last loss ")
    assert lines[3].startswith("Task 2/2 set1, adapter tuning: 1 epoch of 12 images, last loss ")
    assert [(entry["task"], entry["stage"]) for entry in record.stages] == [
        ("set0", "training"),
        ("set0", "adapter_tuning"),
        ("set1", "training"),
        ("set1", "adapter_tuning"),
    ]
    assert all(entry["seconds"] > 0 for entry in record.stages)


def test_without_a_terminal_an_epoch_is_a_line_but_not_every_second(
    tmp_path: Path, tiny: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: False)
    trainer = tiny.trainer(tiny.network(), tiny.tasks(tmp_path), [tiny.stage(epochs=9)], [ProgressHandler(RunRecord())])
    clock = SimpleNamespace(perf_counter=lambda: trainer.state.task * 100 + trainer.state.epoch * BETWEEN / 2)
    monkeypatch.setattr("scripts.learning.handlers.progress.time", clock)
    with caplog.at_level(logging.INFO, logger="scripts.learning.handlers.progress"):
        trainer.run()
    lines = [entry.getMessage() for entry in caplog.records if " left" in entry.getMessage()]
    places = [f"Task {task}/2 set{task - 1}, training, epoch {epoch}/9" for task in (1, 2) for epoch in (1, 3, 5, 7, 9)]
    assert [line.partition(": ")[0] for line in lines] == places
    # 10 s are two epochs: 8 are left of the first task's, and the second task's nine
    assert lines[0].endswith(f", {duration((8 + 9) * BETWEEN / 2)} left")
    assert lines[-2].endswith(f", {duration(2 * BETWEEN / 2)} left")


@pytest.mark.parametrize("terminal", [True, False])
def test_the_loss_is_read_on_a_terminal_alone_and_not_in_every_step(
    terminal: bool, tmp_path: Path, tiny: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    task, *_ = tiny.tasks(tmp_path)
    trainer = tiny.trainer(tiny.network(), [task], [tiny.stage(epochs=2)], [ProgressHandler(RunRecord())])
    clock = SimpleNamespace(perf_counter=lambda: trainer.state.iteration * PAUSE / 3)
    monkeypatch.setattr("scripts.learning.handlers.progress.time", clock)
    item, read = torch.Tensor.item, list[int]()

    def note(value: torch.Tensor) -> float:
        if value.is_floating_point():  # a loss; a sampler reads its seed
            read.append(trainer.state.iteration)
        return item(value)

    monkeypatch.setattr("torch.Tensor.item", note)
    trainer.run()
    shown, end = read[:-1], read[-1]
    assert shown == ([1, 4] if terminal else [3]), "a step now and then, or the first epoch's last"
    assert end == 6, "of the line that the stage ends with"


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        ({"data": "task", "epochs": 2}, (24, 24)),
        ({"data": "task_and_memory", "epochs": 2}, (24, 32)),
        ({"data": "balanced", "tasks": "later"}, (0, 4)),
        ({"data": "all"}, (12, 24)),
    ],
)
def test_passes_are_known_before(
    stage: dict[str, object], expected: tuple[int, int], tmp_path: Path, tiny: SimpleNamespace
) -> None:
    made = tiny.stage(**stage)
    trainer = tiny.trainer(tiny.network(), tiny.tasks(tmp_path), [made], memory=ExemplarMemory(4))
    assert tuple(passes(trainer, number, made) for number in (1, 2)) == expected
