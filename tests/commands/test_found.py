"""Data are found out by what a folder or a file holds, and said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from scripts.commands.configs import TRAIN, parse_config
from scripts.commands.found import Found, find_data, source_of
from scripts.learning.sources.source import Group
from scripts.utils.errors import UserError


def pictures(folder: Path) -> None:
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(folder / name / "1.png")


def table(header: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        pictures(folder)
        between = ";" if ";" in header else ","
        cells = ("a/1.png", "x", "p")[: len(header.split(between))]
        (folder / "labels.csv").write_text(f"{header}\n{between.join(cells)}\n")

    return write


def datalist(folder: Path) -> None:
    folder.mkdir()
    (folder / "datalist.json").write_text(json.dumps({"training": [{"image": "1.png", "label": 0}]}))


def arrays(shape: tuple[int, ...]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        folder.mkdir()
        np.savez(folder / "own.npz", train_images=np.zeros(shape, np.uint8))

    return write


def keys_of(found: Found) -> dict[str, str]:
    return dict(zip(found.keys[::2], found.keys[1::2], strict=True))


@pytest.mark.parametrize(
    ("write", "page", "keys"),
    [
        (pictures, "image_folder", {}),
        (table("path,label,split"), "csv", {"--source#label": "label", "--source#split": "split"}),
        (table("Image;dx;patient_id"), "csv", {"--source#path": "Image", "--source#split": "$None"}),
        (datalist, "datalist", {}),
        (arrays((4, 28, 28)), "medmnist", {"--source#sets": '["own.npz"]'}),
        (arrays((4, 28, 28, 3)), "medmnist", {}),
        (arrays((4, 28, 28, 28)), "medmnist3d", {}),
    ],
    ids=["folders", "table", "other names", "datalist", "grey npz", "colour npz", "volumes"],
)
def test_a_folder_is_known_by_what_it_holds(
    write: Callable[[Path], None], page: str, keys: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    write(folder)
    found = find_data(str(folder))
    assert found.files[-1].stem == page
    assert {"--dataset_dir": str(folder), **keys}.items() <= keys_of(found).items()
    assert (found.files[0].stem == "resnet18_3d") == (page == "medmnist3d")


def test_dicom_is_known_by_its_content_and_so_is_a_table_of_it(tmp_path: Path, scans: Any) -> None:
    scans.dicom(tmp_path / "data" / "a" / "deep" / "IM0", np.zeros((8, 8), np.uint16))
    assert find_data(str(tmp_path / "data")).name == "dicom"
    (tmp_path / "data" / "labels.csv").write_text("file,class,patient\na/deep/IM0,a,p\n")
    keys = keys_of(find_data(str(tmp_path / "data" / "labels.csv")))
    assert keys["--source#files"] == "@list_source"
    assert (keys["--list_source#path"], keys["--list_source#group"]) == ("file", "patient")


def test_a_run_that_goes_on_takes_the_source_alone(tmp_path: Path) -> None:
    table("Image,dx")(tmp_path / "data")
    source = source_of(find_data(str(tmp_path / "data")))
    assert source["_target_"] == "scripts.learning.sources.LabelsCsv"
    assert (source["path"], source["label"], source["split"], source["root"]) == ("Image", "dx", None, "@dataset_dir")
    assert source_of(find_data("generated"))["_target_"].endswith("GeneratedPathology")


def groups_of(found: Found) -> list[Group]:
    """Return what a run that goes on reads of the data, by its config alone."""
    folder = ["--dataset_dir", dict(zip(found.keys[::2], found.keys[1::2], strict=True))["--dataset_dir"]]
    parser = parse_config([TRAIN], [*folder, "--source", repr(source_of(found))])
    return parser.get_parsed_content("source").groups()


def test_a_run_that_goes_on_reads_npz_files(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    shapes = {"images": (4, 28, 28), "labels": (4, 1)}
    parts = {f"{part}_{kind}": np.zeros(shapes[kind], np.uint8) for part in ("train", "val", "test") for kind in shapes}
    np.savez(tmp_path / "data" / "own.npz", **parts)
    (group,) = groups_of(find_data(str(tmp_path / "data")))
    assert sum(len(items) for items in group.train.values()) == 4


def test_a_run_that_goes_on_reads_a_table_without_a_split(tmp_path: Path) -> None:
    table("Image,dx")(tmp_path / "data")
    (group,) = groups_of(find_data(str(tmp_path / "data")))
    assert group.classes == ("x",)


def test_a_run_that_goes_on_reads_a_table_of_dicom_files(tmp_path: Path, scans: Any) -> None:
    for name in ("a", "b"):
        scans.dicom(tmp_path / "data" / name / "IM0", np.zeros((8, 8), np.uint16))
    (tmp_path / "data" / "labels.csv").write_text("file,class\na/IM0,one\nb/IM0,two\n")
    (group,) = groups_of(find_data(str(tmp_path / "data")))
    assert group.classes == ("one", "two")


def test_names_of_columns_may_hold_what_divides_them(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text('path;"label; final";diagnosis\na.png;x;y\n')
    keys = keys_of(find_data(str(tmp_path / "labels.csv")))
    assert (keys["--source#path"], keys["--source#label"]) == ("path", "diagnosis")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("empty", "empty has nothing to learn from, no file is a picture"),
        ("texts", "none of the 1 files"),
        ("texts/a.txt", "is a file, but no CSV, JSON or npz file: give the folder that the images are in"),
        ("gone", "there is no .*gone: give a folder"),
    ],
)
def test_what_is_no_data_is_said(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("text")
    with pytest.raises(UserError, match=message):
        find_data(str(tmp_path / name))
