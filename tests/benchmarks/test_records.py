"""A recorded run is one that finished with the settings it is asked for with, wherever its images lie."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from scripts.commands.compare import Run, plan_runs
from scripts.learning.run_config import write_run_config
from scripts.metrics.comparison import MEASURES
from scripts.utils.files import CHECKPOINT
from scripts.utils.running import RECORDED

FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "records.py"


@pytest.fixture(scope="module")
def records() -> Iterator[ModuleType]:
    sys.path.insert(0, str(FILE.parent))  # for its neighbours
    spec = importlib.util.spec_from_file_location("records", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(FILE.parent))


def planned(folder: Path, images: str = "/here", **keys: Any) -> Run:
    overrides = ["--dataset_dir", images]
    for key, value in keys.items():
        overrides += [f"--{key}", str(value)]
    (run,) = plan_runs("skin8", ["acl"], [1], overrides, folder)
    return run


def finish(run: Run, accuracy: float) -> None:
    write_run_config(run.folder, {**run.config, RECORDED: {**run.config[RECORDED], "tasks": 1}})
    (run.folder / "tasks.json").write_text("[{}]")
    metrics = {measure.key: accuracy for measure in MEASURES if measure.key != "seconds"}
    (run.folder / "metrics.json").write_text(json.dumps({**metrics, "classes": ["a"]}))
    (run.folder / "timing.json").write_text(json.dumps({"seconds": 3.0}))
    (run.folder / CHECKPOINT).touch()


def test_a_finished_run_is_found_again_without_its_folder_and_with_its_images_elsewhere(
    records: ModuleType, tmp_path: Path
) -> None:
    run = planned(tmp_path / "first")
    finish(run, 0.25)
    records.Records(tmp_path / "runs.json").add([run])
    known = records.Records(tmp_path / "runs.json")
    moved = planned(tmp_path / "second", images="/there")
    figures = known.results([moved])["acl"][1]
    assert all(figures[measure.key] == (3.0 if measure.key == "seconds" else 0.25) for measure in MEASURES)
    assert "classes" not in figures


def test_other_settings_are_another_run(records: ModuleType, tmp_path: Path) -> None:
    run = planned(tmp_path)
    finish(run, 0.25)
    known = records.Records(tmp_path / "runs.json")
    known.add([run])
    other = planned(tmp_path, memory_size=16)
    assert known.find(other) is None
    assert known.results([other]) == {"acl": {}}


def test_what_has_not_finished_is_not_recorded(records: ModuleType, tmp_path: Path) -> None:
    run = planned(tmp_path)
    finish(run, 0.25)
    (run.folder / "tasks.json").write_text("[]")
    known = records.Records(tmp_path / "runs.json")
    known.add([run])
    assert known.find(run) is None


def test_further_figures_stay_when_a_run_is_recorded_again(records: ModuleType, tmp_path: Path) -> None:
    run = planned(tmp_path)
    finish(run, 0.25)
    known = records.Records(tmp_path / "runs.json")
    known.add([run])
    known.note(run, {"bound": 0.5})
    known.add([run])
    assert records.Records(tmp_path / "runs.json").find(run)["bound"] == 0.5


def test_a_table_says_where_runs_of_a_seed_are_of_several_processors(
    records: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, joint = runs = [
        *plan_runs("skin8", ["acl"], [1, 2], [], tmp_path),
        *plan_runs("skin8", ["joint"], [1], [], tmp_path),
    ]
    known = records.Records(tmp_path / "runs.json")
    for run in runs:
        finish(run, 0.25)
    known.add(runs)
    assert known.remark(runs) == ""
    monkeypatch.setattr(records, "processor", lambda: "another")
    known.add([second])
    assert known.remark(runs) == ""  # no run of this processor beside it
    known.add([joint])
    remark = known.remark(runs)
    assert "another: joint-s1" in remark and "acl-s2" not in remark
    assert known.remark([second, joint]) == ""
    assert known.remark([first, joint]) == remark
