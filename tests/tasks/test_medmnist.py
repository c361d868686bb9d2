"""npz files in the MedMNIST layout: one split into tasks, a chain of grey and colour, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scripts.errors import UserError
from scripts.tasks import MedMnist, check_images, make_tasks
from scripts.transforms import read_rgb, read_volume

REAL = (
    ("bloodmnist_rebuilt_28.npz", 8, 11967, 3415),
    ("dermamnist_from_jpeg.npz", 7, 7007, 2005),
    ("pneumoniamnist_rebuilt.npz", 2, 4708, 624),
    ("breastmnist_rebuilt_28.npz", 2, 547, 155),
)


def _arrays(classes: int = 3, each: int = 4, grey: bool = False) -> dict[str, Any]:
    rng = np.random.default_rng(classes)
    shape = (classes * each, 6, 5) if grey else (classes * each, 6, 5, 3)
    labels = np.tile(np.arange(classes, dtype=np.uint8), each)[:, None]
    parts = {f"{split}_images": rng.integers(0, 256, shape, dtype=np.uint8) for split in ("train", "val", "test")}
    return {**parts, **{f"{split}_labels": labels for split in ("train", "val", "test")}}


def _save(path: Path, **changes: Any) -> str:
    arrays = {**_arrays(), **changes}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return str(path)


def test_one_file_is_split_into_tasks(tmp_path: Path) -> None:
    file = _save(tmp_path / "mine.npz")
    tasks = make_tasks(MedMnist(file), [1, 2])
    assert [task.classes for task in tasks] == [("0",), ("1", "2")]
    stored = np.load(file)
    for task in tasks:
        for split, part in (("train", task.train), ("test", task.test)):
            for item in part:
                index = int(item["image"].rsplit("/", 1)[1])
                assert item["image"] == f"{file}#{split}/{index}"
                assert item["label"] == stored[f"{split}_labels"][index, 0]
                assert np.array_equal(read_rgb(item["image"]), stored[f"{split}_images"][index])
    assert sum(len(task.train) for task in tasks) == 12


def test_a_chain_of_colour_and_grey_has_a_task_for_each_file(tmp_path: Path) -> None:
    _save(tmp_path / "colour.npz")
    _save(tmp_path / "bloodmnist_small.npz", **_arrays(2, grey=True))
    tasks = make_tasks(
        MedMnist(["colour.npz", "bloodmnist_small.npz"], root=str(tmp_path)), [["colour/1"], ["bloodmnist/eosinophil"]]
    )
    assert [task.first for task in tasks] == [0, 1]
    pixels = read_rgb(tasks[1].train[0]["image"])
    assert pixels.shape == (6, 5, 3)
    assert (pixels == pixels[..., :1]).all()
    assert check_images([item for task in tasks for item in (*task.train, *task.test)])


SPLIT = [["organmnist3d/liver"], ["vesselmnist3d/vessel", "vesselmnist3d/aneurysm"]]


def test_volumes_are_a_task_a_file_with_the_published_names(tmp_path: Path) -> None:
    volume = np.random.default_rng(0).integers(0, 256, (4, 6, 6, 6), dtype=np.uint8)
    volumes = {"train_images": volume, "test_images": volume}
    for name in ("organmnist3d_64", "vesselmnist3d"):
        _save(tmp_path / f"{name}.npz", **{**_arrays(2, 2), **volumes})
    tasks = make_tasks(MedMnist(["organmnist3d_64.npz", "vesselmnist3d.npz"], root=str(tmp_path)), SPLIT)
    assert [list(task.classes) for task in tasks] == SPLIT
    assert np.array_equal(read_volume(tasks[0].train[1]["image"]), volume[2])
    assert check_images(tasks[1].test, read=read_volume) == list(tasks[1].test)
    with pytest.raises(UserError, match="4 of 4 images cannot be used, the first: .* is a volume"):
        check_images(tasks[1].test)


def test_given_names_take_the_place_of_the_files_names(tmp_path: Path) -> None:
    files = [_save(tmp_path / f"{name}.npz") for name in ("x", "y")]
    groups = MedMnist(files, names=["blood", "skin"]).groups()
    assert [group.name for group in groups] == ["blood", "skin"]
    assert groups[1].classes == ("skin/0", "skin/1", "skin/2")
    with pytest.raises(UserError, match="names has 1 entries for 2 npz files"):
        MedMnist(files, names=["blood"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test_images": None}, "bad.npz has no array test_images, only .*train_images"),
        ({"test_labels": None}, "bad.npz has no array test_labels"),
        ({"train_images": np.zeros((12, 6, 5, 4), np.uint8)}, "train_images of .*bad.npz is uint8 \\[12, 6, 5, 4\\]"),
        ({"train_images": np.zeros((12, 6, 5, 3))}, "train_images of .*bad.npz is float64"),
        ({"train_images": np.zeros((12, 30), np.uint8)}, "train_images of .*bad.npz is uint8 \\[12, 30\\]"),
        ({"train_labels": np.zeros((11, 1), int)}, "train_labels of .*bad.npz is int64 \\[11, 1\\].* each of the 12"),
        ({"train_labels": np.zeros((12, 14), int)}, "one whole number for each"),
        ({"test_labels": np.zeros((12, 1))}, "test_labels of .*bad.npz is float64"),
        ({"test_labels": np.full((12, 1), 3)}, "test_labels of .*bad.npz has the label 3: out of range, .* 0 to 2"),
        ({"train_labels": np.full((12, 1), -1)}, "train_labels of .*bad.npz has the label -1: out of range"),
        ({"train_labels": np.array([{}] * 12)}, "train_labels of .*bad.npz cannot be read .*pickle"),
        ({"test_images": np.zeros((0, 6, 5), np.uint8), "test_labels": np.zeros((0, 1), int)}, "test_images .*empty"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        MedMnist(_save(tmp_path / "bad.npz", **changes)).groups()


def test_a_label_beyond_the_known_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="breastmnist.npz has the label 2: out of range, there are 2 classes"):
        MedMnist(_save(tmp_path / "breastmnist.npz")).groups()


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="data file .*absent.npz is missing"):
        MedMnist("absent.npz", root=str(tmp_path)).groups()
    whole = Path(_save(tmp_path / "cut.npz")).read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="cut.npz cannot be read"):
        MedMnist(str(tmp_path / "cut.npz")).groups()


def test_the_real_chain_has_19_classes_in_four_unequal_tasks(test_data: Path) -> None:
    tasks = make_tasks(MedMnist([name for name, *_ in REAL], root=str(test_data)))
    counts = [(len(task.classes), len(task.train), len(task.test)) for task in tasks]
    assert counts == [tuple(expected) for _, *expected in REAL]
    assert [task.first for task in tasks] == [0, 8, 15, 17]
    assert tasks[2].classes == ("pneumoniamnist/normal", "pneumoniamnist/pneumonia")
    assert {read_rgb(task.test[-1]["image"]).shape for task in tasks} == {(28, 28, 3)}


def test_the_real_blood_cells_split_by_name(test_data: Path) -> None:
    tasks = make_tasks(MedMnist("bloodmnist_rebuilt_28.npz", root=str(test_data)), 2, limit=200)
    assert tasks[0].classes == ("basophil", "eosinophil")
    assert [len(task.train) for task in tasks] == [400] * 4
