"""The folder of results: a file an image, lists of all, and nothing of an earlier run that misleads."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from scripts.deploy.inference import ResultFolder
from scripts.imaging.decoding.reasons import ImageRefused, Reason
from scripts.model.decisions.results import ModelIdentity, Result
from scripts.utils.errors import UserError

MODEL = ModelIdentity("a", "task_0", "0" * 64, ("set/benign", "set/odd, very"))
REFUSAL = ImageRefused("image x.png is refused", Reason.TRANSPARENT)


def begun(folder: Path) -> ResultFolder:
    results = ResultFolder(str(folder), MODEL)
    results.start()
    return results


def put(results: ResultFolder, name: str, reference: str, said: Result | ImageRefused) -> None:
    """Put a result and wait until it is written."""
    results.put(name, reference, said)
    results.wait()


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_every_image_has_a_file_and_all_are_listed(tmp_path: Path) -> None:
    results = begun(tmp_path / "out")
    put(results, "x/1.png", "/data/x/1.png", MODEL.judge([0.25, 0.75]))
    put(results, "x.png", "/data/x.png", REFUSAL)
    results.finish()
    assert files(tmp_path / "out") == [
        *("predictions.csv", "predictions.json", "refused.csv", "x.png.result.json", "x/1.png.result.json"),
    ]
    said = {"predicted_class": "set/odd, very", "indeterminate": False, "doubt": None, "distance": None}
    said |= {"probabilities": {"set/benign": 0.25, "set/odd, very": 0.75}}
    record = json.loads((tmp_path / "out" / "x" / "1.png.result.json").read_text())
    assert record == {"image": "x/1.png", **said, "model": MODEL.record()}
    record = json.loads((tmp_path / "out" / "x.png.result.json").read_text())
    assert record == {"image": "x.png", "refused": "transparent", "reason": "image x.png is refused"}
    listed = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert listed == {
        "model": MODEL.record(),
        "classes": list(MODEL.classes),
        "images": [{"image": "x/1.png", **said}],
        "drift": None,
        "refused": [{"image": "x.png", "code": "transparent", "reason": "image x.png is refused"}],
    }
    with open(tmp_path / "out" / "predictions.csv", newline="") as file:
        assert list(csv.reader(file)) == [
            ["image", "predicted class", "indeterminate", *MODEL.classes, "doubt"],
            ["x/1.png", "set/odd, very", "false", "0.250000", "0.750000", ""],
        ]
    with open(tmp_path / "out" / "refused.csv", newline="") as file:
        assert list(csv.reader(file))[1:] == [["x.png", "transparent", "image x.png is refused"]]


@pytest.mark.parametrize("name", ["x" * 251 + ".png", "\u6f22" * 85, "y" * 240 + "/" + "x" * 238, "x" * 237])
def test_a_long_name_leaves_room_for_endings(tmp_path: Path, name: str) -> None:
    results = begun(tmp_path / "out")
    other = name[:-1] + "\u5b57" if name.endswith("\u6f22") else name[:-1] + "z"
    for said in (name, other):
        put(results, said, f"/data/{said}", MODEL.judge([0.25, 0.75]))
    put(results, "1.png", "/data/1.png", REFUSAL)
    results.finish()
    written = [path for path in (tmp_path / "out").rglob("*.result.json") if path.name != "1.png.result.json"]
    assert {json.loads(path.read_text())["image"] for path in written} == {name, other}
    assert [image["image"] for image in json.loads((tmp_path / "out" / "predictions.json").read_text())["images"]] == [
        name,
        other,
    ]


def test_a_refusal_may_name_what_is_no_utf_8(tmp_path: Path) -> None:
    results = begun(tmp_path)
    put(results, "caf.png", "/data/caf\udce9.png", ImageRefused("image /data/caf\udce9.png is refused"))
    results.finish()
    assert "caf\\udce9.png is refused" in (tmp_path / "refused.csv").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "predictions.json").read_text())["refused"][0]["reason"].isprintable()


def test_a_run_that_is_not_finished_has_no_lists(tmp_path: Path) -> None:
    first = begun(tmp_path)
    put(first, "1.png", "/data/1.png", MODEL.judge([0.5, 0.5]))
    first.finish()
    second = begun(tmp_path)
    put(second, "2.png", "/data/2.png", MODEL.judge([0.5, 0.5]))
    assert files(tmp_path) == ["1.png.result.json", "2.png.result.json"]
    second.finish()
    listed = json.loads((tmp_path / "predictions.json").read_text())
    assert [image["image"] for image in listed["images"]] == ["2.png"]


def test_what_an_earlier_run_said_of_a_refused_image_goes(tmp_path: Path, scans: Any) -> None:
    path = scans.dicom(tmp_path / "in" / "a", np.zeros((8, 8), np.uint8))
    results = begun(tmp_path / "out")
    put(results, "a", path, MODEL.judge([0.5, 0.5]))
    assert files(tmp_path / "out") == ["a.result.json", "a.sr.dcm"]
    put(begun(tmp_path / "out"), "a", path, REFUSAL)
    assert files(tmp_path / "out") == ["a.result.json"]
    assert json.loads((tmp_path / "out" / "a.result.json").read_text())["refused"] == "transparent"


def test_a_dicom_image_gets_a_report_whose_json_names_nobody(tmp_path: Path, scans: Any) -> None:
    path = scans.dicom(tmp_path / "in" / "a", np.zeros((8, 8), np.uint8))
    put(begun(tmp_path / "out"), "deep/a", path, MODEL.judge([0.5, 0.5]))
    report = pydicom.dcmread(tmp_path / "out" / "deep" / "a.sr.dcm")
    text = (tmp_path / "out" / "deep" / "a.result.json").read_text()
    dicom = json.loads(text)["dicom"]
    image = pydicom.dcmread(path)
    assert dicom == {
        "StudyInstanceUID": image.StudyInstanceUID,
        "SOPInstanceUID": image.SOPInstanceUID,
        "report": report.SOPInstanceUID,
    }
    assert not any(str(image[name].value) in text for name in ("PatientName", "PatientID", "AccessionNumber"))


def test_an_image_that_says_not_which_study_it_is_of_has_no_report(tmp_path: Path, scans: Any) -> None:
    path = scans.dicom(tmp_path / "in" / "a", np.zeros((8, 8), np.uint8), StudyInstanceUID=None)
    results = begun(tmp_path / "out")
    put(results, "a", f"{path}#?accept=missing_identifiers", MODEL.judge([0.5, 0.5]))
    assert files(tmp_path / "out") == ["a.result.json"]
    dicom = json.loads((tmp_path / "out" / "a.result.json").read_text())["dicom"]
    assert (dicom["refused"], "study, series and SOP instance UID" in dicom["reason"]) == ("missing_identifiers", True)
    assert list(results.results) == ["a"]


def test_a_second_image_of_one_uid_is_named_and_gets_no_second_report(
    tmp_path: Path, scans: Any, caplog: pytest.LogCaptureFixture
) -> None:
    uid, out = "1.2.826.0.1.3680043.8.498.7.99999", tmp_path / "out"
    one = scans.dicom(tmp_path / "in" / "one", np.zeros((8, 8), np.uint8), SOPInstanceUID=uid)
    two = scans.dicom(tmp_path / "in" / "two", np.ones((8, 8), np.uint8), SOPInstanceUID=uid)
    results = begun(out)
    put(results, "one", one, MODEL.judge([0.25, 0.75]))
    put(results, "two", two, MODEL.judge([0.75, 0.25]))
    assert files(out) == ["one.result.json", "one.sr.dcm", "two.result.json"]
    record = json.loads((out / "two.result.json").read_text())
    assert record["predicted_class"] == "set/benign"
    assert record["dicom"]["refused"] == "same_instance"
    assert "that of one, since both have one SOP Instance UID" in record["dicom"]["reason"]
    assert "No report of two: its report would be that of one" in caplog.text
    again = begun(out)  # another run
    put(again, "two", two, MODEL.judge([0.75, 0.25]))
    assert files(out) == ["one.result.json", "one.sr.dcm", "two.result.json"]
    put(again, "one", one, MODEL.judge([0.75, 0.25]))  # replaces its own
    assert files(out) == ["one.result.json", "one.sr.dcm", "two.result.json"]
    assert json.loads((out / "one.result.json").read_text())["predicted_class"] == "set/benign"


@pytest.mark.filterwarnings("ignore")
def test_long_identifiers_are_in_the_report(tmp_path: Path, scans: Any) -> None:
    path = scans.dicom(tmp_path / "in" / "a", np.zeros((8, 8), np.uint8), PatientID="b" * 65)
    put(begun(tmp_path / "out"), "a", path, MODEL.judge([0.5, 0.5]))
    assert pydicom.dcmread(tmp_path / "out" / "a.sr.dcm").PatientID == "b" * 65


def test_pictures_of_one_file_have_files_of_their_own(tmp_path: Path, scans: Any) -> None:
    frames = scans.dicom(tmp_path / "in" / "a", np.zeros((2, 8, 8), np.uint8))
    voxels = scans.nifti(tmp_path / "in" / "b.nii.gz", np.zeros((8, 8, 8), np.uint8))
    results = begun(tmp_path / "out")
    for name, reference in (("a#0", f"{frames}#0"), ("a#1", f"{frames}#1"), ("b.nii.gz#2/3", f"{voxels}#2/3")):
        put(results, name, reference, MODEL.judge([0.5, 0.5]))
    assert files(tmp_path / "out") == [
        *("a#0.result.json", "a#0.sr.dcm", "a#1.result.json", "a#1.sr.dcm", "b.nii.gz#2-3.result.json"),
    ]
    assert len({pydicom.dcmread(tmp_path / "out" / f"a#{number}.sr.dcm").SOPInstanceUID for number in (0, 1)}) == 2


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    results = begun(tmp_path)
    put(results, "a#0", "/data/a#0", MODEL.judge([0.5, 0.5]))
    with pytest.raises(UserError, match="two images are called a#0"):
        put(results, "a#0", "/data/other/a", MODEL.judge([0.5, 0.5]))


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").touch()  # a file in the folder's place, which stops root too
    with pytest.raises(UserError, match=f"cannot write {tmp_path}/out"):
        put(begun(tmp_path / "out" / "deep"), "a", "/data/a", MODEL.judge([0.5, 0.5]))
