"""npz files in the MedMNIST layout: one split into tasks, a chain of grey and colour, and what is refused."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from medmnist.info import INFO

from scripts.imaging.transforms import read_rgb, read_volume
from scripts.learning.sources import MedMnist
from scripts.learning.sources.source import refuse_lookalikes
from scripts.learning.tasks import check_images, make_tasks
from scripts.utils.errors import UserError

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
    tasks = make_tasks(MedMnist(str(tmp_path), "mine.npz").groups(), [1, 2])
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
    source = MedMnist(str(tmp_path), ["colour.npz", "bloodmnist_small.npz"])
    tasks = make_tasks(source.groups(), [["colour/1"], ["bloodmnist/eosinophil"]])
    assert [task.first for task in tasks] == [0, 1]
    pixels = read_rgb(tasks[1].train[0]["image"])
    assert pixels.shape == (6, 5, 3)
    assert (pixels == pixels[..., :1]).all()
    assert check_images([item for task in tasks for item in (*task.train, *task.test)])


def test_volumes_are_a_task_a_file_with_the_published_names(tmp_path: Path) -> None:
    split = [["organmnist3d/liver"], ["vesselmnist3d/vessel", "vesselmnist3d/aneurysm"]]
    volumes = np.random.default_rng(0).integers(0, 256, (4, 6, 6, 6), dtype=np.uint8)
    files = ["organmnist3d_own.npz", "vesselmnist3d_own.npz"]
    for file in files:
        _save(tmp_path / file, **{**_arrays(2, 2), "train_images": volumes, "test_images": volumes})
    tasks = make_tasks(MedMnist(str(tmp_path), files).groups(), split)
    assert [list(task.classes) for task in tasks] == split
    assert np.array_equal(read_volume(tasks[0].train[1]["image"]), volumes[2])
    assert check_images(tasks[1].test, read=read_volume) == list(tasks[1].test)
    with pytest.raises(UserError, match="4 of 4 images cannot be used .many_pictures 4., the first: .* is a volume"):
        check_images(tasks[1].test)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test_images": None}, "bad.npz has no array test_images, only .*train_images"),
        ({"test_labels": None}, "bad.npz has no array test_labels"),
        ({"train_images": np.zeros((12, 6, 5, 4), np.uint8)}, "train_images of .*bad.npz is uint8 \\[12, 6, 5, 4\\]"),
        ({"train_images": np.zeros((12, 6, 5, 3))}, "train_images of .*bad.npz is float64"),
        ({"train_images": np.zeros((12, 30), np.uint8)}, "train_images of .*bad.npz is uint8 \\[12, 30\\]"),
        ({"train_labels": np.zeros((11, 1), int)}, "train_labels of .*bad.npz is int64 \\[11, 1\\].* each of the 12"),
        ({"train_labels": np.full((12, 14), 2)}, "train_labels of .*bad.npz has 14 columns: they must be 0 or 1"),
        ({"train_labels": np.zeros((12, 1, 1), int)}, "whole numbers for each"),
        ({"classes": np.array(["a", "b"])}, "has the label 2: out of range, there are 2 classes"),
        ({"test_labels": np.zeros((12, 1))}, "test_labels of .*bad.npz is float64"),
        ({"test_labels": np.full((12, 1), 3)}, "test_labels of .*bad.npz has the label 3: out of range, .* 0 to 2"),
        ({"train_labels": np.full((12, 1), -1)}, "train_labels of .*bad.npz has the label -1: out of range"),
        ({"train_labels": np.array([{}] * 12)}, "train_labels of .*bad.npz cannot be read .*pickle"),
        ({"test_images": np.zeros((0, 6, 5), np.uint8), "test_labels": np.zeros((0, 1), int)}, "test_images .*empty"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        MedMnist(str(tmp_path), _save(tmp_path / "bad.npz", **changes)).groups()


def test_classes_that_the_file_names_are_taken(tmp_path: Path) -> None:
    _save(tmp_path / "own.npz", classes=np.array(["acne", "eczema", "naevus"]))
    assert MedMnist(str(tmp_path), "own.npz").groups()[0].classes == ("acne", "eczema", "naevus")


def test_of_several_findings_only_images_with_one_are_taken(tmp_path: Path) -> None:
    findings = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 0]] * 3, np.uint8)
    _save(tmp_path / "chest.npz", **{f"{split}_labels": findings for split in ("train", "val", "test")})
    (group,) = MedMnist(str(tmp_path), "chest.npz").groups()
    assert {name: len(items) for name, items in group.train.items()} == {"0": 3, "1": 3}
    for name, items in group.train.items():
        assert all(
            findings[int(item["image"].rsplit("/", 1)[1])].tolist() == [name == "0", name == "1", 0] for item in items
        )


@pytest.mark.parametrize("name", sorted(INFO))
def test_a_set_given_by_name_is_looked_for_under_its_published_name(tmp_path: Path, name: str) -> None:
    largest = 64 if name.endswith("3d") else 224
    for size, file in ((28, f"{name}.npz"), (largest, f"{name}_{largest}.npz")):
        md5 = INFO[name]["MD5" if size == 28 else f"MD5_{size}"]
        with pytest.raises(UserError, match=f"data file {tmp_path}/{file} is missing: get https://.*{file}.*{md5}"):
            MedMnist(str(tmp_path), name, size).groups()


def test_a_file_under_a_published_name_must_be_the_published_one(tmp_path: Path) -> None:
    _save(tmp_path / "bloodmnist_64.npz")
    with pytest.raises(UserError, match=f"bloodmnist_64.npz has the MD5 [0-9a-f]+, not {INFO['bloodmnist']['MD5_64']}"):
        MedMnist(str(tmp_path), "bloodmnist", 64).groups()


def test_a_set_given_by_name_is_read_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = Path(_save(tmp_path / "octmnist_128.npz", **_arrays(4, grey=True)))
    monkeypatch.setitem(INFO["octmnist"], "MD5_128", hashlib.md5(file.read_bytes()).hexdigest())
    (group,) = MedMnist(str(tmp_path), "octmnist", 128).groups()
    assert group.classes == ("choroidal neovascularization", "diabetic macular edema", "drusen", "normal")


def test_a_missing_set_is_downloaded_with_its_checksum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, web: tuple[Path, str]
) -> None:
    folder, address = web
    file = Path(_save(folder / "octmnist.npz", **_arrays(4, grey=True)))
    monkeypatch.setitem(INFO["octmnist"], "url", f"{address}/octmnist.npz")
    monkeypatch.setitem(INFO["octmnist"], "MD5", hashlib.md5(file.read_bytes()).hexdigest())
    (group,) = MedMnist(str(tmp_path / "new"), "octmnist", download=True).groups()
    assert (tmp_path / "new/octmnist.npz").read_bytes() == file.read_bytes()
    monkeypatch.setitem(INFO["octmnist"], "MD5", "0" * 32)
    with pytest.raises(UserError, match="octmnist.npz is not to be had .*MD5 0000.* to .*other/octmnist.npz"):
        MedMnist(str(tmp_path / "other"), "octmnist", download=True).groups()


def test_an_unknown_set_or_size_is_answered_with_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no MedMNIST set 'bloodmnst': choose .*bloodmnist.*or give an npz file"):
        MedMnist(str(tmp_path), "bloodmnst").groups()
    with pytest.raises(UserError, match="size is 32: MedMNIST has bloodmnist with 28, 64, 128, 224 px a side"):
        MedMnist(str(tmp_path), "bloodmnist", 32).groups()
    with pytest.raises(UserError, match="size is 128: MedMNIST has organmnist3d with 28, 64 px a side"):
        MedMnist(str(tmp_path), "organmnist3d", 128).groups()


def test_a_label_beyond_the_known_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="breastmnist_own.npz has the label 2: out of range, there are 2 classes"):
        MedMnist(str(tmp_path), _save(tmp_path / "breastmnist_own.npz")).groups()


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="data file .*absent.npz is missing"):
        MedMnist(str(tmp_path), "absent.npz").groups()
    whole = Path(_save(tmp_path / "cut.npz")).read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="cut.npz cannot be read"):
        MedMnist(str(tmp_path), "cut.npz").groups()


def test_the_real_chain_has_19_classes_in_four_unequal_tasks(test_data: Path) -> None:
    tasks = make_tasks(MedMnist(str(test_data), [name for name, *_ in REAL]).groups())
    counts = [(len(task.classes), len(task.train), len(task.test)) for task in tasks]
    assert counts == [tuple(expected) for _, *expected in REAL]
    assert [task.first for task in tasks] == [0, 8, 15, 17]
    assert tasks[2].classes == ("pneumoniamnist/normal", "pneumoniamnist/pneumonia")
    assert {read_rgb(task.test[-1]["image"]).shape for task in tasks} == {(28, 28, 3)}


def test_the_real_blood_cells_split_by_name(test_data: Path) -> None:
    tasks = make_tasks(MedMnist(str(test_data), "bloodmnist_rebuilt_28.npz").groups(), 2, limit=200)
    assert tasks[0].classes == ("basophil", "eosinophil")
    assert [len(task.train) for task in tasks] == [400] * 4


@pytest.mark.parametrize("names", [[b"a", "ä".encode(), b"c"], ["a", "ä", "c"], np.array(["a", "ä", "c"])])
def test_classes_may_be_text_or_bytes(tmp_path: Path, names: Any) -> None:
    _save(tmp_path / "mine.npz", classes=np.array(names))
    (group,) = MedMnist(str(tmp_path), "mine.npz").groups()
    assert group.classes == ("a", "ä", "c")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (np.array("a"), r"classes of .*mine.npz is <U1 \[\]: it must be a list of names"),
        (np.array([["a", "b", "c"]]), r"is <U1 \[1, 3\]: it must be a list of names"),
        (np.array([b"a", b"\xff", b"c"]), "classes of .*mine.npz holds bytes that are no UTF-8"),
    ],
)
def test_classes_that_are_no_list_of_names_are_refused(tmp_path: Path, names: Any, message: str) -> None:
    _save(tmp_path / "mine.npz", classes=names)
    with pytest.raises(UserError, match=message):
        MedMnist(str(tmp_path), "mine.npz").groups()


def test_no_published_set_has_classes_that_look_alike() -> None:
    for name, described in INFO.items():
        refuse_lookalikes(described["label"].values(), name)


def test_the_fourteen_findings_of_chestmnist_are_learnt_together_by_name(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 2, (12, 14))
    labels[0], labels[1] = 0, 1
    changed = {f"{split}_labels": labels.astype(np.uint8) for split in ("train", "val", "test")}
    file = _save(tmp_path / "chestmnist_mine.npz", **changed)
    (task,) = make_tasks(MedMnist(str(tmp_path), "chestmnist_mine.npz", labels="many").groups())
    assert list(task.classes) == list(INFO["chestmnist"]["label"].values())
    for part, split in zip(task.parts, ("train", "val", "test"), strict=True):
        assert {item["image"]: item["label"] for item in part} == {
            f"{file}#{split}/{index}": row.tolist() for index, row in enumerate(labels)
        }


def test_findings_that_do_not_fit_their_names_and_files_of_one_class_an_image_are_refused(tmp_path: Path) -> None:
    _save(tmp_path / "mine.npz")
    with pytest.raises(UserError, match="findings need a column of 0 and 1 each"):
        MedMnist(str(tmp_path), "mine.npz", labels="many").groups()
    _save(tmp_path / "chestmnist_mine.npz", **{f"{s}_labels": np.zeros((12, 3), int) for s in ("train", "val", "test")})
    with pytest.raises(UserError, match="has 3 columns for 14 findings"):
        MedMnist(str(tmp_path), "chestmnist_mine.npz", labels="many").groups()
