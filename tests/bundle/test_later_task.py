"""One more task in a new process, months later: the old images are gone, the old classes stay."""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

EARLIER, LATER = ["clusters", "fibres", "cells"], ["spaces"]


def image_folders(dataset: Path, names: list[str]) -> list[Path]:
    return [dataset / "Pathology16" / name for name in names]


@pytest.fixture(scope="module")
def three_tasks(tmp_path_factory: pytest.TempPathFactory, uninterrupted: Any, finish_run: Any) -> dict[str, Any]:
    """All that a later task needs to be told after a run of three with copies, whose images are deleted."""
    folder = tmp_path_factory.mktemp("three_tasks")
    dataset = Path(shutil.copytree(uninterrupted.dataset, folder / "images"))
    overrides = {**uninterrupted.overrides, "dataset_dir": dataset, "memory#exemplars": "copies"}
    finish_run({**overrides, "output_dir": folder / "run", "source#sets": EARLIER})
    for old in image_folders(dataset, EARLIER):
        shutil.rmtree(old)
    return {"previous": folder / "run", "source#sets": LATER}


@pytest.fixture(scope="module")
def fourth_task(
    three_tasks: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
    start_run: Any,
    finish_run: Any,
    wait_until: Any,
) -> Path:
    """The output folder of the later task, which was killed once on the way."""
    output = tmp_path_factory.mktemp("fourth_task") / "run"
    overrides = {**three_tasks, "output_dir": output}
    process = start_run(overrides)
    wait_until(process, (output / "epoch.pt").exists)
    process.kill()
    process.join()
    finish_run(overrides)
    return output


def test_later_task_gives_the_weights_of_one_run_over_all_tasks(
    fourth_task: Path, uninterrupted: Any, weights_digest: Callable[[Path], str]
) -> None:
    # that run kept paths: how exemplars are kept makes no difference
    for name in ("model.pt", "checkpoint.pt", "task_3/model.pt"):
        assert weights_digest(fourth_task / name) == weights_digest(uninterrupted.output / name), name
    # the images of the old tasks are gone: the later run is calibrated on those of its own
    later, whole = (json.loads((run / "network.json").read_text()) for run in (fourth_task, uninterrupted.output))
    fitted = {"temperature", "outliers"}
    assert {key for key in whole if later[key] != whole[key]} <= fitted <= set(later)


def test_what_cannot_be_measured_is_null(fourth_task: Path, uninterrupted: Any) -> None:
    found, whole = (json.loads((run / "metrics.json").read_text()) for run in (fourth_task, uninterrupted.output))
    for name in ("accuracy_matrix", "recall_matrix"):
        assert found[name][:3] == whole[name][:3]
        assert found[name][3] == [None, None, None, whole[name][3][3]]
    for name in ("final_accuracy", "final_mean_class_recall", "forgetting", "backward_transfer"):
        assert found[name] is None, name
    assert found["classes"] == whole["classes"]
    assert found["memory_bytes"] == whole["memory_bytes"]
    assert (fourth_task / "accuracy_matrix.csv").read_text().splitlines()[4].startswith("spaces,,,,")


def test_copies_are_private_and_in_no_other_file(fourth_task: Path) -> None:
    folder = fourth_task / "exemplars"
    copies = sorted(folder.iterdir())
    assert len(copies) == 16
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in copies} == {0o600}
    memory = torch.load(fourth_task / "checkpoint.pt", weights_only=True)["states"]["memory"]
    assert sorted(Path(image) for images in memory["classes"].values() for image in images) == copies
    others = [path for path in fourth_task.rglob("*") if path.is_file() and path.parent != folder]
    contents = [path.read_bytes() for path in others]  # torch's archives are not compressed
    for copy in copies:
        pixels = copy.read_bytes()[-64:]
        assert not any(pixels in content for content in contents)


@pytest.fixture(scope="module")
def one_task_with_paths(tmp_path_factory: pytest.TempPathFactory, uninterrupted: Any, finish_run: Any) -> Any:
    folder = tmp_path_factory.mktemp("with_paths")
    dataset = Path(shutil.copytree(uninterrupted.dataset, folder / "images"))
    overrides = {**uninterrupted.overrides, "dataset_dir": dataset}
    finish_run({**overrides, "output_dir": folder / "run", "source#sets": ["clusters"]})
    return {**overrides, "previous": folder / "run"}


def test_paths_whose_images_are_gone_are_refused_by_name(
    one_task_with_paths: dict[str, Any], refusal: Any, tmp_path: Path
) -> None:
    gone = image_folders(one_task_with_paths["dataset_dir"], ["clusters"])[0]
    aside = gone.rename(tmp_path / "aside")
    last = refusal({**one_task_with_paths, "output_dir": tmp_path / "run", "source#sets": ["fibres"]})
    aside.rename(gone)
    assert last.startswith(f"Error: the exemplar {gone}/")
    assert last.endswith(" is gone: restore it, or train with --memory#exemplars copies")
    assert not (tmp_path / "run").exists()


def test_unfinished_run_is_no_start_for_a_later_task(halfway: Any, refusal: Any, tmp_path: Path) -> None:
    overrides = {**halfway.overrides, "previous": halfway.output, "source#sets": LATER}
    last = refusal({**overrides, "output_dir": tmp_path / "run"})
    assert last == f"Error: the run in {halfway.output} is not finished: finish it first, then learn a later task"
    assert not (tmp_path / "run").exists()


def test_folder_without_a_run_is_no_start_for_a_later_task(uninterrupted: Any, refusal: Any, tmp_path: Path) -> None:
    last = refusal({**uninterrupted.overrides, "previous": tmp_path, "output_dir": tmp_path / "run"})
    assert last.startswith(f"Error: {tmp_path} is not the output folder of a run (")
    assert last.endswith("give one (key 'previous')")


def test_class_already_learnt_is_refused_by_name(uninterrupted: Any, refusal: Any, tmp_path: Path) -> None:
    overrides = {**uninterrupted.overrides, "previous": uninterrupted.output, "source#sets": ["fibres"]}
    last = refusal({**overrides, "output_dir": tmp_path / "run"})
    assert last.startswith("Error: class 'fibres/parallel' is in two tasks, ")
    assert last.endswith("rename it or leave it out of the split")


def test_changed_settings_are_refused_for_a_later_task(
    one_task_with_paths: dict[str, Any], bundle_run: Any, tmp_path: Path
) -> None:
    new = {"previous": one_task_with_paths["previous"], "source#sets": ["fibres"], "output_dir": tmp_path / "run"}

    def last(overrides: dict[str, Any], *methods: str) -> str:
        done = bundle_run(["configs/train.json", *methods], {**new, **overrides}, check=False)
        assert done.returncode == 1
        return str(done.stderr.splitlines()[-1])

    said = last({"memory_size": 24, "network_def#head": "levels", "adapter_epochs": 9})
    assert f"the run in {new['previous']} has learnt with other settings (memory_size was 16, is 24; " in said
    assert "network_def#head was unified, is levels): leave them out, or give that run's" in said
    assert "method was dynammo, is acl" in last({}, "configs/methods/acl.yaml")
    assert not (tmp_path / "run").exists()
