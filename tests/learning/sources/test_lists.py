"""Lists of images: text files and CSV, labels by number and by name, and what is refused."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from scripts.learning.sources import Datalist, LabelsCsv, ListFiles
from scripts.learning.sources.source import NO_FINDING
from scripts.learning.tasks import make_tasks
from scripts.utils.errors import UserError

SKIN8 = [["BKL", "MEL"], ["DF", "NV"], ["SCC", "BCC"], ["AK", "VASC"]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("a.png", "b c.png", "d.png", "sub/e.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def _lists(root: Path, train: str, test: str = "d.png NV\n") -> ListFiles:
    (root / "train.txt").write_text(train)
    (root / "test.txt").write_text(test)
    return ListFiles(str(root), "train.txt", "test.txt", classes=["MEL", "NV"])


def _csv(root: Path, text: str, **columns: str | list[str] | None) -> LabelsCsv:
    (root / "labels.csv").write_text(text)
    return LabelsCsv(str(root), **columns)  # type: ignore[arg-type]


def _datalist(root: Path, content: object, **keys: str | None) -> Datalist:
    (root / "datalist.json").write_text(json.dumps(content))
    return Datalist(str(root), **keys)  # type: ignore[arg-type]


def test_labels_of_a_list_are_numbers_or_names(root: Path) -> None:
    (group,) = _lists(root, "a.png 1\n\nb c.png NV\nsub/e.png 0\n").groups()
    assert group.classes == ("MEL", "NV")
    assert group.train == {
        "MEL": [{"image": str(root / "sub/e.png")}],
        "NV": [{"image": str(root / "a.png")}, {"image": str(root / "b c.png")}],
    }
    assert group.test == {"MEL": [], "NV": [{"image": str(root / "d.png")}]}


def test_a_list_may_be_a_csv_file_with_a_header(root: Path) -> None:
    (root / "train.csv").write_text("image,target\na.png,1\nb c.png,1\n")
    (root / "test.csv").write_text("image,target\n\nd.png,0\n")
    (group,) = ListFiles(str(root), "train.csv", "test.csv", classes=["MEL", "NV"]).groups()
    assert {name: len(items) for name, items in group.train.items()} == {"MEL": 0, "NV": 2}
    assert group.test["MEL"] == [{"image": str(root / "d.png")}]


def test_classes_without_names_are_named_after_the_folders_of_their_images(root: Path) -> None:
    for name in ("x/1.png", "x/2.png", "y/1.png"):
        (root / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "images" / name).touch()
    (root / "train.txt").write_text("y/1.png 0\nx/1.png 1\n")
    (root / "test.txt").write_text("x/2.png 1\n")
    (group,) = ListFiles(str(root), "train.txt", "test.txt", images="images").groups()
    assert group.classes == ("y", "x")
    assert group.test["x"] == [{"image": str(root / "images/x/2.png")}]
    for line, message in (
        ("x/1.png 0\ny/1.png 0\n", "puts an image of folder 'y' into class 0, which holds those of 'x'"),
        ("x/1.png 0\ny/1.png 2\n", "label 1 has no image"),
        ("x/1.png x\n", "has the label 'x': it must be a whole number"),
    ):
        (root / "train.txt").write_text(line)
        (root / "test.txt").write_text("x/2.png 0\n")
        with pytest.raises(UserError, match=message):
            ListFiles(str(root), "train.txt", "test.txt", images="images").groups()


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
        ListFiles(str(root), "absent.txt", "test.txt").groups()
    with pytest.raises(UserError, match="data folder .*nowhere is missing: it needs labels.csv"):
        LabelsCsv(str(root / "nowhere")).groups()


def test_a_list_that_is_no_text_is_refused(root: Path) -> None:
    (root / "labels.csv").write_bytes(b"path,label,split\n\xff\xfe,a,train\n")
    with pytest.raises(UserError, match="labels.csv cannot be read .*UTF-8"):
        LabelsCsv(str(root)).groups()


def test_columns_of_a_csv_may_be_many(root: Path) -> None:
    text = "source,path,label,split\nx,a.png,NV,train\ny,d.png,BCC,train\nz,sub/e.png,NV,test\nz,b c.png,BCC,val\n"
    (group,) = _csv(root, "\ufeff" + text).groups()
    assert group.left_out == {"lists and tables": [str(root / "labels.csv")]}
    assert group.classes == ("BCC", "NV")
    assert group.train == {"BCC": [{"image": str(root / "d.png")}], "NV": [{"image": str(root / "a.png")}]}
    assert group.test == {"BCC": [], "NV": [{"image": str(root / "sub/e.png")}]}


@pytest.mark.parametrize("train", ["Train", "TRAINING", " train "])
@pytest.mark.parametrize("test", ["TEST", "Testing"])
@pytest.mark.parametrize("validation", ["valid", "Validation", "VAL"])
def test_splits_are_understood_as_people_call_them(root: Path, train: str, test: str, validation: str) -> None:
    text = f"path,label,split\na.png,NV,{train}\nd.png,NV,{test}\nb c.png,NV,{validation}\n"
    (group,) = _csv(root, text).groups()
    parts = (group.train, group.test, group.validation)
    assert [part["NV"][0]["image"] for part in parts] == [str(root / name) for name in ("a.png", "d.png", "b c.png")]
    assert group.left_out == {
        "lists and tables": [str(root / "labels.csv")],
        "files that no list names": [str(root / "sub/e.png")],
    }


def test_what_is_of_no_split_that_is_known_is_left_out_and_named(root: Path) -> None:
    text = "path,label,split\na.png,NV,train\nd.png,NV,test\nb c.png,NV,later\nsub/e.png,BCC,val\ngone.png,NV,later\n"
    (group,) = _csv(root, text).groups()
    assert group.classes == ("NV",)
    assert group.left_out == {
        "rows of the split 'later'": [str(root / "b c.png")],
        "rows of other parts that name no file": [str(root / "gone.png")],
        "rows for validation of classes that are not learnt": [str(root / "sub/e.png")],
        "lists and tables": [str(root / "labels.csv")],
    }


@pytest.mark.parametrize("other", ["nv", "NV ", "N V", "\uff2e\uff36"])
@pytest.mark.parametrize("split", ["train", "test", "val"])
def test_classes_that_look_alike_are_refused_and_both_named(root: Path, other: str, split: str) -> None:
    text = f"path,label,split\na.png,NV,train\nd.png,NV,test\nb c.png,{other},{split}\n"
    with pytest.raises(UserError, match=r"^classes '.*' and '.*' of .* differ in blanks") as error:
        _csv(root, text).groups()
    assert ascii("NV") in str(error.value) and ascii(other) in str(error.value)


def test_lines_of_a_list_end_at_cr_and_lf_alone(root: Path) -> None:
    (root / "x\x85y.png").touch()
    (group,) = _lists(root, "a.png 1\r\nx\x85y.png 1\n").groups()
    assert [item["image"] for item in group.train["NV"]] == [str(root / "a.png"), str(root / "x\x85y.png")]


def test_a_list_may_be_a_table_of_tabs(root: Path) -> None:
    (root / "train.TSV").write_text("image\ttarget\r\na.png\t1\r\n")
    (root / "test.txt").write_text("d.png 0\n")
    (group,) = ListFiles(str(root), "train.TSV", "test.txt", classes=["MEL", "NV"]).groups()
    assert group.train["NV"] == [{"image": str(root / "a.png")}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na.png,NV\n", r"no column 'split'.*--source#split '\$None' where nothing says"),
        (
            "path,class,split\na.png,NV,train\n",
            "labels.csv has no column 'label': it needs path, label, split, and has path, class, split",
        ),
        ("", "has no column 'path'"),
        ("path,label,split\na.png,NV,train\nlost.png,NV,test\n", "labels.csv names 1 missing image, .*lost.png"),
        ("path,label,split\na.png,NV,train\n", "labels.csv names no images of one of the splits"),
    ],
)
def test_a_wrong_csv_is_refused(root: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        _csv(root, text).groups()


def test_a_row_that_is_cut_short_is_refused(root: Path) -> None:
    with pytest.raises(UserError, match="line 3 of .*labels.csv has no split"):
        _csv(root, "path,label,split\na.png,NV,train\nd.png,NV\n").groups()


def test_the_columns_of_a_csv_are_given_by_name(root: Path) -> None:
    text = "file,dx,patient\na.png,NV,p1\nd.png,NV,p2\n"
    (group,) = _csv(root, text, path="file", label="dx", split=None, group="patient").groups()
    assert group.train == {
        "NV": [{"image": str(root / "a.png"), "group": "p1"}, {"image": str(root / "d.png"), "group": "p2"}]
    }
    assert group.test == {"NV": []}


DATALIST = {
    "labels": {"10": "naevus", "2": "melanoma", "3": "absent"},
    "training": [{"image": "a.png", "label": 10, "patient": "p1"}, {"image": "sub/e.png", "label": 2, "patient": "p2"}],
    "test": [{"image": "d.png", "label": 10, "patient": "p3"}],
}


def test_a_datalist_is_read_in_the_order_of_its_labels(root: Path) -> None:
    (root / "naevus").mkdir()  # MONAI's own reader would take the label for this folder
    (group,) = _datalist(root, DATALIST).groups()
    assert group.classes == ("melanoma", "naevus")
    assert group.train["naevus"] == [{"image": str(root / "a.png")}]
    assert group.test == {"melanoma": [], "naevus": [{"image": str(root / "d.png")}]}


def test_a_datalist_may_be_without_a_split_and_without_names(root: Path) -> None:
    content = {"training": [{"image": "a.png", "label": 10}, {"image": "d.png", "label": 9}]}
    (group,) = _datalist(root, content, test=None).groups()
    assert group.classes == ("9", "10")
    assert not any(group.test.values())


def test_the_patients_of_a_datalist_are_taken_when_named(root: Path) -> None:
    (group,) = _datalist(root, DATALIST, group="patient").groups()
    assert group.train["naevus"] == [{"image": str(root / "a.png"), "group": "p1"}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "datalist.json is no JSON object: it needs the keys training, test"),
        ({"training": []}, "datalist.json has no list 'test', only training"),
        ({"training": ["a.png"], "test": []}, "has the entry 'a.png': it needs one 'image'"),
        ({"training": [{"image": "a.png"}], "test": []}, "it needs one 'label'"),
        ({"training": [{"image": ["a.png"], "label": 1}], "test": []}, "it needs one 'image'"),
        ({"training": [{"image": "lost.png", "label": 1}], "test": []}, "names 1 missing image, the first .*lost.png"),
        ({"training": [{"image": "a.png", "label": 1}], "test": []}, "names no images of one of the splits"),
    ],
)
def test_a_wrong_datalist_is_refused(root: Path, content: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        _datalist(root, content).groups()


def test_a_datalist_that_is_no_json_is_refused(root: Path) -> None:
    (root / "datalist.json").write_text("{")
    with pytest.raises(UserError, match="datalist.json is no JSON"):
        Datalist(str(root)).groups()


def test_the_skin_images_divide_into_the_published_tasks(test_data: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(test_data / "skin8_isic_180.zip") as archive:
        archive.extractall(tmp_path)
    tasks = make_tasks(LabelsCsv(str(tmp_path)).groups(), SKIN8)
    assert [list(task.classes) for task in tasks] == SKIN8
    assert sum(len(task.train) for task in tasks) == 1439
    assert sum(len(task.test) for task in tasks) == 404
    assert [task.first for task in tasks] == [0, 2, 4, 6]
    assert all(f"/{task.classes[item['label'] - task.first]}/" in item["image"] for task in tasks for item in task.test)


SEVERAL = "path,label,split\na.png,NV| MEL |NV,train\nd.png,No Finding,train\nb c.png,MEL,test\nsub/e.png,,test\n"
COLUMNS = "path,split,MEL,NV\na.png,train,1,1\nd.png,train,0,0\nb c.png,test,1,0\nsub/e.png,test,0, 0\n"


@pytest.mark.parametrize(("text", "findings"), [(SEVERAL, []), (COLUMNS, ["MEL", "NV"])])
def test_an_image_may_have_several_findings_or_none(root: Path, text: str, findings: list[str]) -> None:
    (group,) = _csv(root, text, findings=findings, labels="many").groups()
    assert group.several
    assert group.classes == ("MEL", "NV")
    a, bc, d, e = ([{"image": str(root / name)}] for name in ("a.png", "b c.png", "d.png", "sub/e.png"))
    assert group.train == {"MEL": a, "NV": a, NO_FINDING: d}
    assert group.test == {"MEL": bc, "NV": [], NO_FINDING: e}


def test_findings_that_are_not_told_as_they_should_be_are_refused(root: Path) -> None:
    for cell in ("2", "", "yes"):
        text = COLUMNS.replace("train,1,1", f"train,1,{cell}")
        with pytest.raises(
            UserError, match=f"line 2 of .*labels.csv has (no NV|'{cell}' in 'NV': a finding is 0 or 1)"
        ):
            _csv(root, text, findings=["MEL", "NV"], labels="many").groups()
    with pytest.raises(UserError, match="findings are MEL, NV, of which .* give --source#labels many"):
        _csv(root, COLUMNS, findings=["MEL", "NV"])
    with pytest.raises(UserError, match="labels is 'some': give one or many"):
        _csv(root, SEVERAL, labels="some")
    with pytest.raises(UserError, match="no column 'BCC'"):
        _csv(root, COLUMNS, findings=["MEL", "BCC"], labels="many").groups()
