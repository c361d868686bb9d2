"""Who looks on from another process reads how far a run is."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ignite.engine import Events

from scripts.learning.engines import ContinualEvents
from scripts.learning.handlers import ProgressFileHandler


def test_the_file_tells_task_stage_and_epoch_at_every_step(tmp_path: Path, tiny: SimpleNamespace) -> None:
    path, seen = tmp_path / "progress.json", list[Any]()
    stages = [tiny.stage(epochs=2), tiny.stage("adapter_tuning")]
    trainer = tiny.trainer(tiny.network(), tiny.tasks(tmp_path), stages, [ProgressFileHandler(str(path))])
    for event in (ContinualEvents.STAGE_PREPARED, Events.EPOCH_COMPLETED):
        trainer.add_event_handler(event, lambda: seen.append(tuple(json.loads(path.read_text()).values())))
    trainer.run()
    first = [
        ("training", 1, 2, 0, 2),
        ("training", 1, 2, 1, 2),
        ("training", 1, 2, 2, 2),
        ("adapter_tuning", 2, 2, 0, 1),
        ("adapter_tuning", 2, 2, 1, 1),
    ]
    assert seen == [(task, *step) for task in ("set0", "set1") for step in first]
