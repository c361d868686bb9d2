"""Lists of images: text files and CSV, labels by number and by name, and what is refused."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from scripts.errors import UserError
from scripts.tasks import LabelsCsv, ListFiles, make_tasks

SKIN8 = [["BKL", "MEL"], ["DF", "NV"], ["SCC", "BCC"], ["AK", "VASC"]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("a.png", "b c.png", "d.png", "sub/e.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def _lists(root: Path, train: str, test: str = "d.png NV\n", order: list[str] | None = None) -> ListFiles:
    (root / "train.txt").write_text(train)
    (root / "test.txt").write_text(test)
    return ListFiles(str(root), "train.txt", "test.txt", ["MEL", "NV"], order)


def _csv(root: Path, text: str, order: list[str] | None = None) -> LabelsCsv:
    (root / "labels.csv").write_text(text)
    return LabelsCsv(str(root), order=order)


def test_labels_of_a_list_are_numbers_or_names(root: Path) -> None:
    (group,) = _lists(root, "a.png 1\n\nb c.png NV\nsub/e.png 0\n").groups()
    assert group.classes == ("MEL", "NV")
    assert group.train == {
        "MEL": [{"image": str(root / "sub/e.png")}],
        "NV": [{"image": str(root / "a.png")}, {"image": str(root / "b c.png")}],
    }
    assert group.test == {"MEL": [], "NV": [{"image": str(root / "d.png")}]}


def test_order_is_the_order_of_the_tasks(root: Path) -> None:
    tasks = make_tasks(_lists(root, "a.png NV\nd.png MEL\n", "d.png NV\nd.png MEL\n", order=["NV", "MEL"]), 1)
    assert [task.classes for task in tasks] == [("NV",), ("MEL",)]


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ("a.png 2\n", "line 1 of .*train.txt has the label '2': it must be 0 to 1 or one of MEL, NV"),
        ("a.png -1\n", "label '-1'"),
        ("a.png NV\na.png\n", "line 2 of .*train.txt is 'a.png': each line needs"),
        ("a.png NV\ngone.png NV\nlost.png NV\n", "train.txt names 2 missing images, the first .*gone.png"),
        ("../a.png NV\n", "names '../a.png': paths must lie below"),
        ("/a.png NV\n", "names '/a.png': paths must lie below"),
        ("\n", "train.txt names no images"),
    ],
)
def test_a_wrong_list_is_refused(root: Path, train: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        _lists(root, train).groups()


def test_a_missing_list_or_folder_is_named(root: Path) -> None:
    with pytest.raises(UserError, match="list .*absent.txt is missing"):
        ListFiles(str(root), "absent.txt", "test.txt", ["a"]).groups()
    with pytest.raises(UserError, match="data folder .*nowhere is missing: it needs labels.csv"):
        LabelsCsv(str(root / "nowhere")).groups()


def test_a_list_that_is_no_text_is_refused(root: Path) -> None:
    (root / "labels.csv").write_bytes(b"path,label,split\n\xff\xfe,a,train\n")
    with pytest.raises(UserError, match="labels.csv cannot be read .*UTF-8"):
        LabelsCsv(str(root)).groups()


def test_columns_of_a_csv_may_be_many_and_other_splits_are_left_out(root: Path) -> None:
    text = "source,path,label,split\nx,a.png,NV,train\ny,d.png,BCC,train\nz,sub/e.png,NV,test\nz,b c.png,BCC,val\n"
    (group,) = _csv(root, "\ufeff" + text).groups()
    assert group.classes == ("BCC", "NV")
    assert group.train == {"BCC": [{"image": str(root / "d.png")}], "NV": [{"image": str(root / "a.png")}]}
    assert group.test == {"BCC": [], "NV": [{"image": str(root / "sub/e.png")}]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,class,split\na.png,NV,train\n", "labels.csv has no column 'label': it needs path, label, split"),
        ("", "has no column 'path'"),
        ("path,label,split\na.png,NV,train\nlost.png,NV,test\n", "labels.csv names 1 missing images, .*lost.png"),
        ("path,label,split\na.png,NV,train\n", "labels.csv names no images of one of the splits"),
    ],
)
def test_a_wrong_csv_is_refused(root: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        _csv(root, text).groups()


def test_a_row_that_is_cut_short_is_refused(root: Path) -> None:
    with pytest.raises(UserError, match="line 3 of .*labels.csv has no split"):
        _csv(root, "path,label,split\na.png,NV,train\nd.png,NV\n").groups()


def test_an_order_of_other_classes_is_refused(root: Path) -> None:
    text = "path,label,split\na.png,NV,train\nd.png,NV,test\n"
    with pytest.raises(UserError, match="order is NV, MEL, but the classes of .*labels.csv are NV"):
        _csv(root, text, order=["NV", "MEL"]).groups()


def test_the_skin_images_divide_into_the_published_tasks(test_data: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(test_data / "skin8_isic_180.zip") as archive:
        archive.extractall(tmp_path)
    tasks = make_tasks(LabelsCsv(str(tmp_path)), SKIN8)
    assert [list(task.classes) for task in tasks] == SKIN8
    assert sum(len(task.train) for task in tasks) == 1439
    assert sum(len(task.test) for task in tasks) == 404
    assert [task.first for task in tasks] == [0, 2, 4, 6]
    assert all(f"/{task.classes[item['label'] - task.first]}/" in item["image"] for task in tasks for item in task.test)
