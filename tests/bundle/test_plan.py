"""The command that says what would be trained, on generated images, with weights that are nowhere to be had."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from scripts.commands.app import main

BUNDLE = Path(__file__).resolve().parents[2] / "bundle"


def arguments_of(small_run: Any, folder: Path) -> list[str]:
    given = {
        **small_run.overrides,
        "dataset_dir": small_run.dataset,
        "output_dir": folder / "run",
        "weights": "DEFAULT",
        "source#sets": "['cells','spaces']",
        "memory_size": 3,
    }
    return [part for key, value in given.items() for part in (f"--{key}", str(value))]


def test_the_plan_is_written_and_nothing_is_trained_or_downloaded(
    small_run: Any, python: Callable[..., Any], tmp_path: Path
) -> None:
    done = python(
        ["-m", "scripts.commands", "plan", "generated", *arguments_of(small_run, tmp_path)],
        TORCH_HOME=str(tmp_path / "torch"),
        https_proxy="http://localhost:1",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Plan for generated: 48 training, 8 validation and 16 test images (classes: 4, tasks: 2)" in done.stdout
    assert "Training would refuse it: give a memory_size of at least 4" in done.stdout
    assert "No estimate of time and memory, since a rehearsal of the training ended with: Error: " in done.stdout
    *_, said = done.stdout.partition("To train: ")
    training = shlex.split(said)
    assert training[1:] == ["train", "generated", *arguments_of(small_run, tmp_path)]
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    sheets = {f"contact_sheets/{name}.png" for name in ("cells-small", "cells-large", "spaces-holes", "spaces-bands")}
    assert written == {f"run/plan/{name}" for name in ("plan.json", "plan.md", *sheets)}
    content = json.loads((tmp_path / "run" / "plan" / "plan.json").read_text())
    assert [(task["name"], task["images"], task["memory_per_class"]) for task in content["tasks"]] == [
        ("cells", {"64x64 RGB": 36}, 1),
        ("spaces", {"64x64 RGB": 36}, 0),
    ]
    assert [warning["kind"] for warning in content["warnings"]] == ["tiny_class", "memory"]


@pytest.mark.usefixtures("run_here")  # undoes what a run changes of this process
def test_a_mistake_in_the_data_ends_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", sys.argv)
    given = ["--dataset_dir", str(tmp_path / "nowhere"), "--output_dir", str(tmp_path / "run")]
    assert main(["plan", "image_folder", *given]) == 1
    assert f"Error: data folder {tmp_path}/nowhere is missing" in capsys.readouterr().err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_a_later_run_is_planned_on_top_of_the_one_before(
    small_run: Any, run_here: Callable[..., None], tmp_path: Path
) -> None:
    tested = small_run.dataset / "Pathology16" / "cells" / "test" / "small" / "0000.png"
    for name, colour in (("train/other/1.png", None), ("train/other/2.png", "red"), ("test/other/1.png", "blue")):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tested, path) if colour is None else Image.new("RGB", (64, 64), colour).save(path)
    run_here(
        {
            "previous": small_run.output,
            "dataset_dir": tmp_path / "images",
            "output_dir": tmp_path / "run",
            "split": None,
            "image_size": 64,
        },
        ("configs/train.json", "configs/datasets/image_folder.yaml", "configs/plan.json"),
    )
    content = json.loads((tmp_path / "run" / "plan" / "plan.json").read_text())
    assert [task["learnt_before"] for task in content["tasks"]] == [True] * 4 + [False]
    assert [task["memory_per_class"] for task in content["tasks"]] == [40, 20, 13, 10, 8]
    estimate = content["estimate"]
    assert estimate["fault"] == ""
    assert list(estimate["parts"]) == ["start", "reading", "adapter_tuning", "balanced_finetuning", "between"]
    assert estimate["seconds"] == pytest.approx(sum(estimate["parts"].values()))
    assert min(estimate["parts"].values()) > 0
    assert estimate["memory"] > 2e8
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"plan"}
    found = {warning["kind"]: warning["images"] for warning in content["warnings"]}
    assert found["shared"] == [str(tested)]
    assert set(found) == {"two_labels", "shared", "tiny_class"}


@pytest.mark.parametrize(
    ("given", "part"),
    [
        (("--limt", "3"), "--limt was given '3', but there is no such key: did you mean --limits?"),
        (("--image_size", "abc"), "--image_size was given 'abc': it takes a whole number"),
        *(
            pytest.param(given, said, marks=pytest.mark.slow)
            for given, said in (
                (("--planned_tasks#limt", "3"), "did you mean --planned_tasks#limit?"),
                (("--batch_size", "-3"), "--batch_size was given '-3': it takes a whole number from 1"),
                (("--device", "cuda:1"), "--device was given 'cuda:1', which is not there"),
            )
        ),
    ],
)
def test_it_refuses_what_training_refuses_before_an_image_is_opened(
    given: tuple[str, str], part: str, python: Callable[..., Any], tmp_path: Path
) -> None:
    plan = ["-m", "scripts.commands", "plan", "generated", *given]
    train = ["-m", "monai.bundle", "run", "--config_file", "configs/train.json", *given]
    for command in (plan, train):
        done = python([*command, "--dataset_dir", tmp_path / "images", "--output_dir", tmp_path / "run"])
        assert done.returncode == 2
        assert part in done.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []
