"""Another seed gives other weights; that the same one gives the same run, `test_run_config.py` shows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def test_another_seed_gives_another_run(
    uninterrupted: Any, finish_run: Any, weights_digest: Callable[[Path], str], tmp_path: Path
) -> None:
    finish_run({**uninterrupted.overrides, "output_dir": tmp_path / "run", "seed": 2, "source#sets": ["clusters"]})
    name = "task_0/model.pt"
    assert weights_digest(tmp_path / "run" / name) != weights_digest(uninterrupted.output / name)
