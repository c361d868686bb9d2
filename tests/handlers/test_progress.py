"""One line a stage, and its seconds."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from scripts.handlers import ProgressHandler
from scripts.handlers.progress import PAUSE
from scripts.metrics import RunRecord


def test_each_stage_is_one_line(tmp_path: Path, tiny: SimpleNamespace, caplog: pytest.LogCaptureFixture) -> None:
    record = RunRecord()
    stages = [tiny.stage(epochs=2), tiny.stage("adapter_tuning")]
    trainer = tiny.trainer(tiny.network(), tiny.tasks(tmp_path), stages, [ProgressHandler(record)])
    with caplog.at_level(logging.INFO, logger="scripts.handlers.progress"):
        trainer.run()
    lines = [entry.getMessage() for entry in caplog.records if entry.name == "scripts.handlers.progress"]
    assert len(lines) == 4
    assert lines[0].startswith("Task 1/2 set0, training: 2 epochs of 12 images, last loss ")
    assert lines[3].startswith("Task 2/2 set1, adapter tuning: 1 epochs of 12 images, last loss ")
    assert [(entry["task"], entry["stage"]) for entry in record.stages] == [
        ("set0", "training"),
        ("set0", "adapter_tuning"),
        ("set1", "training"),
        ("set1", "adapter_tuning"),
    ]
    assert all(entry["seconds"] > 0 for entry in record.stages)


@pytest.mark.parametrize("terminal", [True, False])
def test_the_loss_is_read_on_a_terminal_alone_and_not_in_every_step(
    terminal: bool, tmp_path: Path, tiny: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    task, *_ = tiny.tasks(tmp_path)
    trainer = tiny.trainer(tiny.network(), [task], [tiny.stage(epochs=2)], [ProgressHandler(RunRecord())])
    clock = SimpleNamespace(perf_counter=lambda: trainer.state.iteration * PAUSE / 3)
    monkeypatch.setattr("scripts.handlers.progress.time", clock)
    item, read = torch.Tensor.item, list[int]()

    def note(value: torch.Tensor) -> float:
        if value.is_floating_point():  # a loss; a sampler reads its seed
            read.append(trainer.state.iteration)
        return item(value)

    monkeypatch.setattr("torch.Tensor.item", note)
    trainer.run()
    bar, end = read[:-1], read[-1]
    assert bar == ([1, 4] if terminal else [])
    assert end == 6, "of the line that the stage ends with"
