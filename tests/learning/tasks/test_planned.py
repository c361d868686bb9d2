"""What a data set holds is in a task or left out: nothing is lost on the way, and nothing counted twice."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from scripts.learning.planning.plan import counted_files
from scripts.learning.sources import Datalist, ImageFolder, LabelsCsv, ListFiles, MedMnist, ScanFolders, Scans
from scripts.learning.tasks import PlannedTasks, plan_tasks
from scripts.learning.tasks.planned import BEYOND_LIMIT

SETTINGS: dict[str, Any] = {"test_fraction": 0.25, "validation_fraction": 0.25}


def picture(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path, "PNG")
    return str(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of eight pictures of each of three classes, and of what is none."""
    folder = tmp_path / "data"
    for name in (f"{kind}/{number}.png" for kind in "abc" for number in range(8)):
        picture(folder / name)
    for name in ("a/deeper/9.png", "9.png", ".cache/9.png"):
        picture(folder / name)
    for name in ("x.heic", "a/x.heic", "b/notes.txt", ".DS_Store"):
        (folder / name).write_bytes(b"\0\0\0\x18ftypheic")
    return folder


def planned(source: Any, tmp_path: Path, **settings: Any) -> PlannedTasks:
    return plan_tasks(source, str(tmp_path / "run" / "split.csv"), **{**SETTINGS, **settings})


def files_in(folder: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(folder))


def listed(root: Path, names: list[str]) -> list[dict[str, str]]:
    return [{"image": name, "label": name[0]} for name in names]


def of_folders(root: Path) -> Any:
    return ImageFolder(str(root))


def of_csv(root: Path) -> Any:
    rows = [f"{kind}/{number}.png,{kind}" for kind in "abc" for number in range(6)]
    (root / "labels.csv").write_text("path,label\n" + "\n".join([*rows, rows[0]]) + "\n")
    return LabelsCsv(str(root), split=None)


def of_csv_with_parts(root: Path) -> Any:
    parts = ["train", "TEST", "valid", "later"]
    rows = [f"./{kind}/{number}.png,{kind},{parts[number % 4]}" for kind in "abc" for number in range(6)]
    (root / "labels.csv").write_text("\n".join(["path,label,split", *rows, "gone.png,a,later"]))
    return LabelsCsv(str(root))


def of_datalist(root: Path) -> Any:
    names = {
        key: [f"{kind}/{n}.png" for kind in "abc" for n in ns] for key, ns in (("training", (0, 1)), ("test", (2,)))
    }
    lists = {key: listed(root, found) for key, found in names.items()}
    (root / "datalist.json").write_text(json.dumps({**lists, "validation": listed(root, ["a/5.png"])}))
    return Datalist(str(root))


def of_lists(root: Path) -> Any:
    for file, numbers in (("train.txt", (0, 1, 2)), ("test.txt", (3,))):
        lines = [f"{kind}/{number}.png {label}" for label, kind in enumerate("abc") for number in numbers]
        (root / file).write_text("\n".join(lines))
    return ListFiles(str(root), "train.txt", "test.txt")


@pytest.mark.parametrize("make", [of_folders, of_csv, of_csv_with_parts, of_datalist, of_lists])
@pytest.mark.parametrize("settings", [{}, {"limit": 1}, {"split": [["a"], ["c"]]}], ids=["all", "limit", "classes"])
def test_what_is_learnt_and_left_out_adds_up_to_the_files(
    make: Any, settings: dict[str, Any], root: Path, tmp_path: Path
) -> None:
    counts = counted_files(planned(make(root), tmp_path, **settings))
    assert sum(counts.values()) == files_in(root)
    assert min(counts["training"], counts["test"]) > 0
    assert (BEYOND_LIMIT in counts) == ("limit" in settings)
    assert ("images of classes that no task learns" in counts) == ("split" in settings)


def test_files_of_several_pictures_count_once_and_those_not_chosen_are_named(tmp_path: Path, scans: Any) -> None:
    root = tmp_path / "data"
    rng = np.random.default_rng(0)
    for kind in "ab":
        for patient in range(4):
            for number in range(3):
                pixels = rng.integers(0, 255, (2, 4, 4), dtype=np.uint8)
                who = {"PatientID": f"{kind}{patient}", "SeriesInstanceUID": f"1.2.{ord(kind)}.{patient}"}
                scans.dicom(root / kind / f"{patient}-{number}.dcm", pixels, InstanceNumber=number, **who)
    (root / "a" / "report.pdf").write_text("%PDF")
    for series, pictures, others in (("all", "all", 1), ("middle", "all", 17), ("all", "5,9,1", 25)):
        source = Scans(ScanFolders(str(root)), {"pictures": pictures}, series)
        if pictures != "all":
            assert {len(files) for files in source.groups()[0].left_out.values()} == {1, 24}
            continue
        division = planned(source, tmp_path / f"{series}{others}")
        counts = counted_files(division)
        assert sum(counts.values()) == files_in(root) == 25
        assert sum(count for use, count in counts.items() if use not in ("training", "validation", "test")) == others
        images = Counter(len(part) for task in division.tasks for part in task.parts)
        assert sum(size * times for size, times in images.items()) == 2 * (25 - others)


def test_images_of_several_findings_or_none_are_counted(tmp_path: Path) -> None:
    labels = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 0], [0, 0, 1], [1, 0, 0]])
    arrays = {
        f"{split}_{what}": data
        for split in ("train", "test")
        for what, data in (("images", np.zeros((6, 4, 4), np.uint8)), ("labels", labels))
    }
    np.savez(tmp_path / "chest.npz", **arrays)
    found = counted_files(planned(MedMnist(str(tmp_path), "chest.npz"), tmp_path, validation_fraction=0))
    assert found == {"training": 4, "validation": 0, "test": 4, "images with several findings, or none": 4}


def test_images_of_classes_learnt_before_are_left_out_as_such(root: Path, tmp_path: Path) -> None:
    for number in range(8):
        picture(root / "d" / f"{number}.png")
    first = planned(of_folders(root), tmp_path, split=[["a", "b"]])
    (tmp_path / "run").mkdir(exist_ok=True)
    (tmp_path / "run" / "tasks.json").write_text(
        json.dumps([{"name": "a+b", "classes": ["a", "b"], "test": list(first.tasks[0].test), "validation": []}])
    )
    then = planned(of_folders(root), tmp_path, split=[["c"]], previous=str(tmp_path / "run"))
    counts = counted_files(then)
    assert counts["images of classes that were learnt before"] == 16
    assert counts["images of classes that no task learns"] == 8
    assert sum(counts.values()) == files_in(root)


def test_what_is_left_out_is_logged_unless_nobody_would_take_it_for_data(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    planned(of_folders(root), tmp_path)
    assert [message.partition(", the first")[0] for message in caplog.messages] == [
        "Left out: 2 files that lie where no class is",
        "Left out: 3 files of kinds that are not read",
    ]
