"""One line a stage, and its seconds."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest

from scripts.handlers import ProgressHandler
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
