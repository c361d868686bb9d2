"""Folders of images: what is found, in which order, and what a wrong layout is answered with."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from scripts.learning.sources import ImageFolder, PathologyFolders
from scripts.learning.tasks import check_images, make_tasks
from scripts.utils.errors import UserError


def _touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


@pytest.fixture
def pathology(tmp_path: Path) -> Path:
    tree = tmp_path / "Pathology16"
    for split in ("train", "test"):
        _touch(tree, f"oral/{split}/normal/1.png", f"oral/{split}/tumour/2.JPG", f"breast/{split}/normal/3.tif")
    return tmp_path


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    root = tmp_path / "clinic"
    _touch(root, *(f"{name}/{number:02d}.png" for name in ("psoriasis", "eczema") for number in range(10)))
    return root


def test_each_set_of_the_pathology_tree_is_a_task(pathology: Path) -> None:
    tasks = make_tasks(PathologyFolders(str(pathology)).groups())
    assert [(task.name, task.classes) for task in tasks] == [
        ("breast", ("breast/normal",)),
        ("oral", ("oral/normal", "oral/tumour")),
    ]
    assert [item["image"] for item in tasks[1].train] == [
        str(pathology / "Pathology16/oral/train" / name) for name in ("normal/1.png", "tumour/2.JPG")
    ]


def test_sets_give_the_order_and_leave_out_the_rest(pathology: Path) -> None:
    names = [
        [group.name for group in PathologyFolders(str(pathology), sets).groups()]
        for sets in (["oral", "breast"], ["oral"])
    ]
    assert names == [["oral", "breast"], ["oral"]]


def test_hidden_files_and_other_kinds_of_file_are_not_images(pathology: Path) -> None:
    _touch(pathology / "Pathology16", "oral/train/normal/.hidden.png", "oral/train/normal/notes.txt", ".cache/x")
    (task, _) = make_tasks(PathologyFolders(str(pathology), ["oral", "breast"]).groups())
    assert len(task.train) == 2


def test_a_missing_folder_is_named_with_the_layout(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{tmp_path}/Pathology16 is missing: the layout is .*Pathology16/<set>/<train"):
        PathologyFolders(str(tmp_path)).groups()
    with pytest.raises(UserError, match=f"{tmp_path}/nowhere is missing: the layout is .*<class>/<image>"):
        ImageFolder(str(tmp_path / "nowhere")).groups()


def test_an_unknown_set_is_answered_with_what_there_is(pathology: Path) -> None:
    with pytest.raises(UserError, match="no set 'colon' in .*: it has breast, oral"):
        PathologyFolders(str(pathology), ["colon"]).groups()


def test_a_missing_split_or_class_folder_is_named(pathology: Path) -> None:
    shutil.rmtree(pathology / "Pathology16/oral/test/tumour")
    with pytest.raises(UserError, match="class folder .*oral/test/tumour is missing"):
        PathologyFolders(str(pathology)).groups()
    shutil.rmtree(pathology / "Pathology16/oral/test")
    with pytest.raises(UserError, match="data folder .*oral/test is missing"):
        PathologyFolders(str(pathology)).groups()


def test_an_empty_class_folder_is_named(pathology: Path) -> None:
    (pathology / "Pathology16/oral/train/normal/1.png").unlink()
    with pytest.raises(UserError, match="class folder .*oral/train/normal has no images"):
        PathologyFolders(str(pathology)).groups()


def test_a_folder_without_class_folders_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"data folder {tmp_path} has no folders in it: the layout is"):
        ImageFolder(str(tmp_path)).groups()


def test_class_folders_without_a_split_are_all_for_training(classes: Path) -> None:
    (group,) = ImageFolder(str(classes)).groups()
    assert group.classes == ("eczema", "psoriasis")
    assert {name: len(items) for name, items in group.train.items()} == {"eczema": 10, "psoriasis": 10}
    assert group.test == {}


def test_the_folders_of_a_split_may_have_other_names(tmp_path: Path) -> None:
    _touch(tmp_path, "train/n01/1.JPEG", "val/n01/2.JPEG")
    (group,) = ImageFolder(str(tmp_path), test="val").groups()
    assert group.test == {"n01": [{"image": str(tmp_path / "val/n01/2.JPEG")}]}


def test_a_missing_class_folder_is_counted(classes: Path) -> None:
    with pytest.raises(UserError, match=f"{classes} has 2 class folders, not 3"):
        ImageFolder(str(classes), classes=3).groups()


def test_where_to_get_a_missing_data_set_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere is missing: .*; get it from https://example.org"):
        ImageFolder(str(tmp_path / "nowhere"), origin="https://example.org").groups()


def test_train_and_test_folders_are_taken_as_they_are(tmp_path: Path) -> None:
    _touch(tmp_path, "train/a/1.png", "train/a/2.png", "test/a/3.png", "val/a/4.png")
    (group,) = ImageFolder(str(tmp_path)).groups()
    assert group.train == {"a": [{"image": str(tmp_path / f"train/a/{number}.png")} for number in (1, 2)]}
    assert group.test == {"a": [{"image": str(tmp_path / "test/a/3.png")}]}


def test_a_train_folder_without_a_test_folder_is_refused(tmp_path: Path) -> None:
    _touch(tmp_path, "train/a/1.png")
    with pytest.raises(UserError, match=f"{tmp_path}/test is missing"):
        ImageFolder(str(tmp_path)).groups()


@pytest.mark.parametrize(
    ("train", "test", "validation"),
    [("Train", "Test", "Val"), ("TRAIN", "TEST", "valid"), ("training", "testing", "VAL")],
)
def test_the_folders_of_a_split_are_known_in_any_case(tmp_path: Path, train: str, test: str, validation: str) -> None:
    _touch(tmp_path, f"{train}/a/1.png", f"{test}/a/2.png", f"{validation}/a/3.png")
    (group,) = ImageFolder(str(tmp_path)).groups()
    assert [part["a"][0]["image"] for part in (group.train, group.test, group.validation)] == [
        str(tmp_path / f"{folder}/a/{number}.png") for number, folder in enumerate((train, test, validation), start=1)
    ]


def test_the_folders_of_a_pathology_set_are_known_in_any_case(pathology: Path) -> None:
    (pathology / "Pathology16/oral/train").rename(pathology / "Pathology16/oral/Train")
    (group,) = PathologyFolders(str(pathology), ["oral"]).groups()
    assert len(group.train["oral/normal"]) == 1


def test_two_folders_that_mean_the_same_are_refused(tmp_path: Path) -> None:
    _touch(tmp_path, "train/a/1.png", "Train/a/1.png", "test/a/2.png")
    with pytest.raises(UserError, match=f"folders Train and train of {tmp_path} mean the same"):
        ImageFolder(str(tmp_path)).groups()


@pytest.mark.parametrize(("one", "other"), [("na\u0308vus", "n\xe4vus"), ("NV", "nv"), ("a b", "a  b")])
def test_class_folders_that_look_alike_are_refused_and_both_named(tmp_path: Path, one: str, other: str) -> None:
    _touch(
        tmp_path, f"flat/{one}/1.png", f"flat/{other}/1.png", f"split/train/{one}/1.png", f"split/test/{other}/1.png"
    )
    for root in ("flat", "split"):
        with pytest.raises(UserError) as error:
            ImageFolder(str(tmp_path / root)).groups()
        assert ascii(one) in str(error.value) and ascii(other) in str(error.value)
        assert "differ in blanks, case or Unicode form alone" in str(error.value)


def test_pictures_are_known_by_their_content(tmp_path: Path) -> None:
    kinds = {"a.JFIF": "JPEG", "b.JPE": "JPEG", "c": "PNG", "d.jp2": "JPEG2000", "e.dat": "JPEG2000", "f": "WEBP"}
    kinds |= {"g.1": "TIFF", "h": "BMP", "i": "GIF"}
    for name, kind in kinds.items():
        (tmp_path / "x").mkdir(exist_ok=True)
        with open(tmp_path / "x" / name, "wb") as file:
            Image.new("RGB", (20, 20)).save(file, kind)
    (group,) = ImageFolder(str(tmp_path)).groups()
    assert [Path(item["image"]).name for item in group.train["x"]] == sorted(kinds)
    assert check_images(group.train["x"]) == group.train["x"]


def test_names_that_are_no_utf_8_are_left_out_or_refused(tmp_path: Path) -> None:
    odd = os.fsdecode(b"caf\xe9")
    _touch(tmp_path, "files/a/1.png", f"files/a/{odd}.png", "classes/a/1.png", f"classes/{odd}/1.png")
    (group,) = ImageFolder(str(tmp_path / "files")).groups()
    assert group.left_out == {"files whose names are no UTF-8": [f"{tmp_path}/files/a/caf\\udce9.png"]}
    with pytest.raises(UserError, match=r"folder caf\\udce9 of .*classes has a name that is no UTF-8: rename it"):
        ImageFolder(str(tmp_path / "classes")).groups()


def test_a_file_in_the_place_of_a_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="data folder .*/file is a file: the layout is"):
        ImageFolder(str(tmp_path / "file")).groups()


def test_what_is_no_image_of_a_class_is_left_out_and_named(tmp_path: Path) -> None:
    _touch(tmp_path, "a/1.png", "a/2.heic", "a/notes.txt", "a/deeper/3.png", "4.png", "a/.hidden", ".cache/5.png")
    (group,) = ImageFolder(str(tmp_path)).groups()
    assert group.train == {"a": [{"image": str(tmp_path / "a/1.png")}]}
    assert group.left_out == {
        "hidden files": [str(tmp_path / name) for name in (".cache/5.png", "a/.hidden")],
        "files that lie where no class is": [str(tmp_path / name) for name in ("4.png", "a/deeper/3.png")],
        "files of kinds that are not read": [str(tmp_path / name) for name in ("a/2.heic", "a/notes.txt")],
    }
