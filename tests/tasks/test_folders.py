"""Folders of images: what is found, in which order, and what a wrong layout is answered with."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from scripts.errors import UserError
from scripts.tasks import ImageFolder, PathologyFolders, make_tasks


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
    tasks = make_tasks(PathologyFolders(str(pathology)))
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
    (task, _) = make_tasks(PathologyFolders(str(pathology), ["oral", "breast"]))
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
