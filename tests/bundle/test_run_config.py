"""A run's folder says what the run was: it runs itself, is gone on from, evaluated and extended by that alone."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

BUNDLE = Path(__file__).resolve().parents[2] / "bundle"


@pytest.fixture
def line_of(bundle_run: Any) -> Callable[..., str]:
    """Run the command, which must fail, and return its last line."""

    def run(overrides: dict[str, Any], configs: Any = "configs/train.json") -> str:
        done = bundle_run(configs, overrides, check=False)
        assert done.returncode != 0
        return done.stderr.splitlines()[-1]

    return run


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def test_it_gives_the_same_run_from_any_folder_and_that_run_alone(
    uninterrupted: Any, bundle_run: Any, line_of: Any, weights_digest: Callable[[Path], str], tmp_path: Path
) -> None:
    config = uninterrupted.output / "config.json"
    done = bundle_run(config, {"output_dir": tmp_path / "again"})
    assert "Task 4/4" in done.stdout, "logged as by the bundle's own configs"
    for name in ("model.pt", "checkpoint.pt", "task_0/model.pt"):
        assert weights_digest(tmp_path / "again" / name) == weights_digest(uninterrupted.output / name), name
    for name in ("metrics.json", "accuracy_matrix.csv", "network.json", "tasks.json"):
        assert (tmp_path / "again" / name).read_bytes() == (uninterrupted.output / name).read_bytes(), name
    first, second = (
        json.loads((run / "config.json").read_text()) for run in (uninterrupted.output, tmp_path / "again")
    )
    assert {key for key in {**first, **second} if first.get(key) != second.get(key)} == {"output_dir"}
    said = line_of({"output_dir": tmp_path / "other", "image_size": 48, "seed": 2}, config)
    assert "gives that run alone (image_size was 40, is 48; seed was 1, is 2): for another one start from" in said
    assert not (tmp_path / "other").exists()


def test_a_finished_run_is_refused_with_every_difference_and_writes_nothing(
    uninterrupted: Any, line_of: Any, bundle_run: Any
) -> None:
    before = contents(uninterrupted.output)
    overrides = {**uninterrupted.overrides, "output_dir": uninterrupted.output}
    changed = {
        "optimizer#lr": 0.5,
        "scheduler#fractions": [0.5],
        "save#rules#acceptance": 0.5,
        "network_def#weights_sha256": "00",
    }
    said = line_of({**overrides, **changed})
    assert "acceptance was 0.95, is 0.5; optimizer#lr was 0.05, is 0.5; scheduler#fractions was [0.35" in said
    assert "weights_sha256" not in said
    done = bundle_run(
        "configs/train.json", {**overrides, "limits#num_workers": 1, "limits#cache_bytes": 0, "tasks#check": "false"}
    )
    assert "is finished" in done.stdout
    assert contents(uninterrupted.output) == before


def test_a_moved_run_is_evaluated_as_it_was_trained(
    uninterrupted: Any, bundle_run: Any, linked_copy: Any, tmp_path: Path
) -> None:
    moved = linked_copy(uninterrupted.output, tmp_path / "moved")
    done = bundle_run(["configs/train.json", "configs/evaluate.json"], {"model": moved}, cwd=tmp_path)
    assert f"Model: {moved}, 4 tasks, the last spaces, sha256 " in done.stdout.splitlines()[-1]
    assert (moved / "evaluation" / "task_3" / "classes.csv").is_file()


def test_training_changes_nothing_that_git_tracks(small_run: Any, tmp_path: Path) -> None:
    if shutil.which("git") is None or not (BUNDLE.parent / ".git").exists():
        pytest.skip("no git checkout")
    changed = subprocess.run(
        ["git", "status", "--porcelain", "--", "bundle/models", "bundle/data", "bundle/runs"],
        cwd=BUNDLE.parent,
        capture_output=True,
        text=True,
    )
    assert (changed.returncode, changed.stdout) == (0, "")
    assert not list((BUNDLE / "models").glob("*.pt"))


@pytest.mark.parametrize("method", ["ewc", pytest.param("lwf", marks=pytest.mark.slow)])
def test_killed_at_random_moments_of_the_second_task_it_ends_as_uninterrupted(
    method: str,
    uninterrupted: Any,
    start_run: Any,
    finish_run: Any,
    weights_digest: Callable[[Path], str],
    tmp_path: Path,
) -> None:
    configs = ("configs/train.json", f"configs/methods/{method}.yaml")
    overrides = {**uninterrupted.overrides, "source#sets": ["clusters", "fibres"]}
    first = "task_0/model.pt"
    finish_run({**overrides, "output_dir": tmp_path / "whole"}, configs)
    whole = tmp_path / "whole"
    second_task = (whole / "model.pt").stat().st_mtime - (whole / first).stat().st_mtime
    moments, killed = random.Random(0), 0
    for _ in range(20):  # each goes on from where the one before was killed; one that got to its end starts anew
        process = start_run({**overrides, "output_dir": tmp_path / "killed"}, configs)
        while process.is_alive() and not (tmp_path / "killed" / first).is_file():
            time.sleep(0.01)
        process.join(moments.uniform(0, second_task))
        if process.is_alive():
            process.kill()
            process.join()
            killed += 1
        else:
            shutil.rmtree(tmp_path / "killed")
        if killed == 3:
            break
    assert killed == 3
    finish_run({**overrides, "output_dir": tmp_path / "killed"}, configs)
    for name in ("model.pt", "checkpoint.pt"):
        assert weights_digest(tmp_path / "killed" / name) == weights_digest(tmp_path / "whole" / name), name
