"""Data sets by name through the real command: a folder without a split, and what a wrong layout ends with."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

FOLDER = ("configs/train.json", "configs/datasets/image_folder.yaml")


def flat(tree: Path, target: Path, sets: list[str]) -> Path:
    """Copy the training images of some generated sets into one folder a class."""
    for name in sets:
        shutil.copytree(tree / "Pathology16" / name / "train", target, dirs_exist_ok=True)
    return target


def split(output: Path) -> dict[str, str]:
    with open(output / "split.csv", encoding="utf-8") as file:
        return {Path(row["path"]).parent.name + Path(row["path"]).name: row["split"] for row in csv.DictReader(file)}


def test_a_folder_is_divided_once_whatever_is_added(uninterrupted: Any, run_here: Any, tmp_path: Path) -> None:
    images = flat(uninterrupted.dataset, tmp_path / "images", ["clusters"])
    settings = {key: value for key, value in uninterrupted.overrides.items() if not key.startswith("source")}
    overrides = {
        **settings,
        "dataset_dir": images,
        "output_dir": tmp_path / "run",
        "split": 1,
        "planned_tasks#test_fraction": 0.34,
    }
    run_here(overrides, FOLDER)
    before = split(tmp_path / "run")
    assert sorted(before.values()).count("test") == 4  # 2 of 6 a class
    tested = json.loads((tmp_path / "run/tasks.json").read_text())
    assert {"image", "label"} == {key for task in tested for item in task["test"] for key in item}
    for path in list(images.glob("nests/*.png")):
        shutil.copy(path, path.with_name(f"added-{path.name}"))
    run_here({**overrides, "restart": "true"}, FOLDER)
    after = split(tmp_path / "run")
    assert len(after) == 18
    assert before.items() <= after.items()
    assert split(tmp_path / "run.1") == after  # written before the old run was moved aside


@pytest.mark.parametrize(
    ("overlay", "overrides", "message"),
    [
        ("csv", {}, "labels.csv, columns path,label,split"),
        ("list", {}, "train.txt, lines <path> <label>"),
        ("datalist", {}, "datalist.json, MONAI's datalist form"),
        ("dicomweb", {}, "need a query a class, two classes at least: give source#files#queries"),
        ("medmnist", {}, "bloodmnist.npz is missing: get https://"),
        ("cifar100", {}, "cifar-100-python.tar.gz is not to be had"),
        ("mednist", {}, "/MedNIST is missing: the layout is"),
        ("imagenet_r", {}, "get it from https://github.com/hendrycks/imagenet-r"),
        ("tinyimagenet", {}, "tiny-imagenet-200.zip"),
        ("cub200", {}, "classes.txt is missing: get the data set from https://"),
        ("skin7", {}, "ISIC2018_Task3_Training_Input is missing: get the images"),
        ("skin40", {}, "main_classes_split is missing: it needs train_1.txt"),
        ("medmnist", {"source#size": 32}, "size is 32: MedMNIST has bloodmnist with 28, 64, 128, 224 px"),
        ("image_folder", {"planned_tasks#test_fraction": 2}, "planned_tasks#test_fraction is 2"),
    ],
)
def test_a_missing_data_set_ends_with_what_is_needed(
    overlay: str, overrides: dict[str, Any], message: str, uninterrupted: Any, refusal: Any, tmp_path: Path
) -> None:
    settings = {key: value for key, value in uninterrupted.overrides.items() if not key.startswith("source")}
    line = refusal(
        {**settings, "backbone": "resnet18", "network_def#sites": None, "output_dir": tmp_path / "run"}
        | {"dataset_dir": tmp_path / "nowhere", **overrides},
        ("configs/train.json", f"configs/datasets/{overlay}.yaml"),
    )
    assert line.startswith("Error: ")
    assert message in line
    assert not (tmp_path / "run").exists()
