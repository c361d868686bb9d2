"""The same seed gives the same figures and weights on the CPU, whichever process and folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def test_same_seed_gives_the_same_run_and_another_seed_another(
    small_run: Any, finish_run: Any, weights_digest: Callable[[Path], str], tmp_path: Path
) -> None:
    overrides = {**small_run.overrides}
    finish_run({**overrides, "output_dir": tmp_path / "again"})
    finish_run({**overrides, "output_dir": tmp_path / "other", "seed": 2, "source#sets": ["clusters"]})
    for name in ("metrics.json", "accuracy_matrix.csv", "network.json", "tasks.json"):
        assert (tmp_path / "again" / name).read_bytes() == (small_run.output / name).read_bytes(), name
    for name in ("model.pt", "checkpoint.pt", "task_0/model.pt"):
        assert weights_digest(tmp_path / "again" / name) == weights_digest(small_run.output / name), name
    name = "task_0/model.pt"
    assert weights_digest(tmp_path / "other" / name) != weights_digest(small_run.output / name)
