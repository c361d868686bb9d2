"""The command for pipelines and a run of inference.json write the same, to the byte."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image

from scripts.commands.app import main

CONFIGS = ("configs/inference.json",)
OWN = (".png", ".csv", ".json")


@pytest.fixture
def images(tmp_path: Path, scans: Any) -> Path:
    folder, rng = tmp_path / "in", np.random.default_rng(0)
    folder.mkdir()
    for number in range(3):
        Image.fromarray(rng.integers(0, 256, (50, 30 + number, 3), dtype=np.uint8)).save(folder / f"{number}.png")
        scans.dicom(folder / f"IM{number}", rng.integers(0, 4000, (44, 40), dtype=np.uint16), InstanceNumber=number + 1)
    scans.dicom(folder / "scout", np.zeros((8, 8), np.uint8), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    return folder


def test_both_doors_write_the_same(
    images: Path, tmp_path: Path, trained_model: Path, run_here: Callable[..., None]
) -> None:
    options = {"saliency": "dicom", "threshold": 0.5, "temperature": 1.5, "batch_size": 2, "device": "cpu"}
    paths = {"dataset_dir": images, "output_dir": tmp_path / "config", "model": trained_model}
    run_here({**paths, **options}, CONFIGS)
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    command = tmp_path / "command"
    assert main(["classify", str(trained_model), str(images), "--output", str(command), *words]) == 3

    files = sorted(path.relative_to(command) for path in command.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(tmp_path / "config") for path in (tmp_path / "config").rglob("*.*"))
    assert len(files) == 3 + 7 + 6 + 2 * 3  # lists, results, pictures, reports and captures
    for name in files:
        first, second = tmp_path / "config" / name, command / name
        if name.suffix in OWN:
            assert first.read_bytes() == second.read_bytes(), name
        else:
            assert undated(first) == undated(second), name


def undated(path: Path) -> pydicom.Dataset:
    """Return a DICOM file without the time at which it was written."""
    dataset = pydicom.dcmread(path)
    del dataset.ContentDate, dataset.ContentTime
    return dataset


def test_results_among_the_images_are_refused(images: Path, trained_model: Path, refusal: Callable[..., str]) -> None:
    paths = {"dataset_dir": images, "output_dir": images / "out", "model": trained_model, "device": "cpu"}
    said = refusal(paths, CONFIGS)
    assert said == f"Error: output folder {images}/out and image folder {images} lie in each other: give one apart"


def test_an_unknown_kind_of_saliency_is_named(
    images: Path, tmp_path: Path, trained_model: Path, refusal: Callable[..., str]
) -> None:
    paths = {"dataset_dir": images, "output_dir": tmp_path / "out", "model": trained_model, "device": "cpu"}
    said = refusal({**paths, "saliency": "jpg"}, CONFIGS)
    assert said.startswith("Error: saliency is 'jpg': give png or dicom or seg")
