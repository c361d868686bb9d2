"""What a run learnt from, copied without names: what the table and the audit log say, and what is refused before."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from PIL import Image, PngImagePlugin

from scripts.commands.app import main
from scripts.deploy.versions import VersionStore
from scripts.learning.sources import LabelsCsv
from scripts.learning.tasks import Task, images_digest, write_tasks
from scripts.utils.sums import file_sha256

pytest.importorskip("dicognito", reason="no dicognito: install the extra [deidentify]")

NAME = "Secretname"


def write_run(folder: Path, tasks: list[dict[str, Any]]) -> Path:
    """Write of a run what says what it has learnt from; its data set is a list of tasks beside it."""
    folder.mkdir()
    learnt = [Task(**task) for task in tasks]
    content = {
        "tasks": [[task.name, *task.classes] for task in learnt],
        "images": [images_digest(task) for task in learnt],
        "states": {},
    }
    torch.save(content, folder / "checkpoint.pt")
    write_tasks(folder, learnt)
    data = folder.with_name("data.json")
    data.write_text(json.dumps(tasks))
    planned = {"_target_": "scripts.learning.planning.planned_in", "file": str(data)}
    config = {"planned_tasks": planned, "tasks": "$@planned_tasks.tasks", "output_dir": "elsewhere", "recorded": {}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def dicom_run(tmp_path: Path, scans: Any) -> Path:
    """A run of two tasks of DICOM files; the last file has two frames, each an item, and says nothing of its pixels."""

    def item(number: int, label: int, shape: tuple[int, ...] = (8, 9), said: str | None = "NO") -> dict[str, Any]:
        pixels = np.full(shape, number, np.uint8)
        names = {"PatientName": NAME, "PatientID": f"4711-{label}", "StudyInstanceUID": f"1.2.826.99.{label}"}
        path = scans.dicom(tmp_path / "images" / NAME / str(number), pixels, **names, BurnedInAnnotation=said)
        return {"image": path, "label": label, "group": f"group{label}"}

    frames = item(5, 3, (2, 8, 9), None)
    last = tuple({**frames, "image": f"{frames['image']}#{frame}"} for frame in (0, 1))
    first = {"name": "one", "classes": ("a", "b"), "first": 0}
    return write_run(
        tmp_path / "run",
        [
            {**first, "train": (item(0, 0), item(1, 0)), "test": (item(2, 1),), "validation": (item(3, 1),)},
            {"name": "two", "classes": ("c", "d"), "first": 2, "train": (item(4, 2), *last), "test": ()},
        ],
    )


def started(store: Path) -> VersionStore:
    versions = VersionStore(store)
    versions.begin()
    return versions


def exported(run: Path, store: Path, *more: str) -> list[Mapping[str, str]]:
    """Run the command and return the rows of its table."""
    assert main(["deidentify", str(run), str(run.parent / "copies"), "--store", str(store), *more]) == 0
    with open(run.parent / "copies" / "labels.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_dicom_is_copied_once_a_file_and_each_copy_is_in_the_log(dicom_run: Path, tmp_path: Path) -> None:
    store = started(tmp_path / "store")
    rows = exported(dicom_run, store.folder, "--burned_in")
    said = [(row["label"], row["split"]) for row in rows]
    assert said == [("a", "train"), ("a", "train"), ("b", "val"), ("b", "test"), ("c", "train"), ("d", "train")]
    assert len({row["group"] for row in rows}) == 4 and rows[0]["group"] == rows[1]["group"]
    copies = [tmp_path / "copies" / row["path"] for row in rows]
    read = [pydicom.dcmread(path) for path in copies]
    assert [int(one.pixel_array.flat[0]) for one in read] == [0, 1, 3, 2, 4, 5]
    assert read[0].StudyInstanceUID == read[1].StudyInstanceUID != read[2].StudyInstanceUID
    for path in (tmp_path / "copies").iterdir():
        assert not any(word in path.read_bytes() for word in (NAME.encode(), b"4711-", b"1.2.826.99", b"group0"))
    events = store.audit.events()
    sources = [tmp_path / "images" / NAME / str(number) for number in (0, 1, 3, 2, 4, 5)]
    assert [event["source"] for event in events] == [file_sha256(path) for path in sources]
    assert [event["copy"] for event in events] == [file_sha256(path) for path in copies]
    assert {event["event"] for event in events} == {"de-identified copy"}
    assert NAME not in store.audit.path.read_text()


def test_what_was_copied_can_be_learnt_from(dicom_run: Path, tmp_path: Path) -> None:
    exported(dicom_run, started(tmp_path / "store").folder, "--burned_in")
    (group,) = LabelsCsv(str(tmp_path / "copies"), group="group").groups()
    assert sorted(group.train) == ["a", "b", "c", "d"]


def test_of_pictures_the_pixels_are_copied_and_nothing_else(tmp_path: Path) -> None:
    told = PngImagePlugin.PngInfo()
    told.add_text("Patient", NAME)
    pixels = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    Image.fromarray(pixels).save(tmp_path / f"{NAME}.png", pnginfo=told)
    np.save(tmp_path / "volume.npy", np.arange(30, dtype=np.uint8).reshape(2, 3, 5))
    train = tuple({"image": str(tmp_path / name), "label": 0} for name in (f"{NAME}.png", "volume.npy"))
    run = write_run(tmp_path / "run", [{"name": "one", "classes": ("a",), "first": 0, "train": train, "test": ()}])
    picture, volume = exported(run, started(tmp_path / "store").folder, "--burned_in")
    copy = tmp_path / "copies" / picture["path"]
    assert np.array_equal(np.asarray(Image.open(copy)), pixels)
    assert NAME.encode() not in copy.read_bytes()
    assert np.array_equal(np.load(tmp_path / "copies" / volume["path"]).ravel(), np.arange(30))


def refusal(capsys: pytest.CaptureFixture[str], run: Path, store: Path, *more: str) -> str:
    """Run the command, which must copy nothing, and return its last line."""
    assert main(["deidentify", str(run), str(run.parent / "copies"), "--store", str(store), *more]) == 1
    assert not list((run.parent / "copies").glob("*.*"))
    return capsys.readouterr().err.splitlines()[-1]


def test_pixels_that_may_hold_a_name_are_asked_for(
    dicom_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = started(tmp_path / "store")
    line = refusal(capsys, dicom_run, store.folder)
    assert line.startswith("Error: 1 of 6 images may show a name, the first ") and line.endswith("add --burned_in")
    assert store.audit.events() == []


def test_images_that_have_changed_are_not_copied(
    dicom_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = json.loads((tmp_path / "data.json").read_text())
    (tmp_path / "data.json").write_text(json.dumps([one, {**two, "train": two["train"][1:]}]))
    line = refusal(capsys, dicom_run, started(tmp_path / "store").folder, "--burned_in")
    assert "the images of task 2, two, have changed" in line


def test_nothing_is_copied_that_cannot_be_written_down(
    dicom_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "for the audit log: make it once" in refusal(capsys, dicom_run, tmp_path / "store", "--burned_in")


def test_a_folder_that_holds_something_is_left_alone(
    dicom_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "copies").mkdir()
    (tmp_path / "copies" / "mine").touch()
    assert "copies is not empty" in refusal(capsys, dicom_run, started(tmp_path / "store").folder, "--burned_in")
