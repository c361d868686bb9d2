"""`dynammo suspects` on a run that learnt planted wrong labels: a private table and sheet, the planted ones first."""

from __future__ import annotations

import csv
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from scripts.commands.app import main
from scripts.commands.configs import method_files

IMAGES = [["clusters/nests", "fibres/parallel"], ["cells/large", "spaces/bands"]]  # told apart from 20 images each


def test_planted_labels_come_first(
    run_here: Callable[..., None], test_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = test_data / "weights" / "mobilenet_v2_imagenet_from_tflite_int8.pth"
    settings = {
        **{"source#train_per_class": 20, "source#test_per_class": 2, "source#val_per_class": 2, "device": "cpu"},
        **{"backbone": "mobilenet_v2", "weights": weights, "image_size": 65, "split": IMAGES},
        **{"dataset_dir": tmp_path / "images", "output_dir": tmp_path / "run", "planned_tasks#wrong_labels": 0.1},
    }
    run_here(settings, ["configs/train.json", *method_files("frozen+levels+ridge")])
    capsys.readouterr()
    assert main(["suspects", str(tmp_path / "run"), "--images", "8"]) == 0
    folder = tmp_path / "run" / "suspects"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    with (folder / "suspects.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert f"{len(rows)} of 80 training images look like another class" in capsys.readouterr().out
    true = ["/".join((Path(row["image"]).parents[2].name, Path(row["image"]).parent.name)) for row in rows]
    planted = [row["label"] != name for row, name in zip(rows, true, strict=True)]
    assert sum(planted[:8]) >= 4, "of 80 images 8 were planted: one would be there by chance"
    with Image.open(folder / "suspects.png") as sheet:
        assert sheet.width > 96
    assert main(["suspects", str(tmp_path / "run"), "--images", "0"]) == 0
    assert not (folder / "suspects.png").exists()


def test_what_is_no_run_is_refused(python: Callable[..., Any], tmp_path: Path) -> None:
    done = python(["-m", "scripts.commands.suspects", str(tmp_path)])
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"Error: no checkpoint.pt in {tmp_path}: give the output folder of a run"
