"""The command that pipelines call: a folder of images in, a folder of results out, and an exit status."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image

from scripts.commands.app import main
from scripts.deploy.inference.loading import load_image_classifier

BUNDLE = Path(__file__).resolve().parents[2] / "bundle"
RNG = np.random.default_rng(0)
PICTURES = [RNG.integers(0, 256, (40, 50, 3), dtype=np.uint8) for _ in range(3)]
GREY = RNG.integers(0, 4000, (40, 50), dtype=np.uint16)
VARIABLES = (
    *("HOLOSCAN_INPUT_PATH", "HOLOSCAN_OUTPUT_PATH", "HOLOSCAN_MODEL_PATH"),
    *("MERCURE_IN_DIR", "MERCURE_OUT_DIR"),
)


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def images(tmp_path: Path, scans: Any) -> Path:
    """Two photographs, and a DICOM image."""
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    Image.fromarray(PICTURES[0]).save(folder / "a.png")
    Image.fromarray(PICTURES[1]).save(folder / "deep" / "b.jpg")
    scans.dicom(
        folder / "ST0" / "IM0", GREY, PatientName="Secretname^A", PatientID="PATIENT-1", AccessionNumber="ACC-1"
    )
    return folder


def run(*words: object) -> int:
    return main(["classify", *(str(word) for word in words)])


def listed(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "predictions.json").read_text())
    return found


def snapshot(folder: Path) -> dict[str, str]:
    """Return every file and folder below, with what it holds; what Python compiles is left out."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in folder.rglob("*")
        if "__pycache__" not in path.parts
    }


def test_images_and_dicom_are_classified(
    images: Path, tmp_path: Path, trained_model: Path, is_valid_dicom: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(trained_model, images, "--output", out, "--batch_size", 2) == 0
    said, model = capsys.readouterr().out.splitlines()
    assert said == f"Classified 3 images, refused 0: {out}"
    assert model.startswith(f"Model: {trained_model}, 2 tasks, the last second, sha256 ")
    content = listed(out)
    classifier = load_image_classifier(trained_model)
    for record in content["images"]:
        expected = classifier.classify(str(images / record["image"])).record()
        assert record["predicted_class"] == expected["predicted_class"]
        assert record["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-4)
    assert [record["image"] for record in content["images"]] == ["ST0/IM0", "a.png", "deep/b.jpg"]
    assert sorted(path.name for path in out.rglob("*.dcm")) == ["IM0.sr.dcm"]
    assert is_valid_dicom(out / "ST0" / "IM0.sr.dcm")
    source, report = (pydicom.dcmread(path) for path in (images / "ST0" / "IM0", out / "ST0" / "IM0.sr.dcm"))
    assert report.StudyInstanceUID == source.StudyInstanceUID


def test_the_same_input_twice_gives_the_same_report_uid(images: Path, tmp_path: Path, trained_model: Path) -> None:
    words = (trained_model, images)
    assert run(*words, "--output", tmp_path / "a") == run(*words, "--output", tmp_path / "b", "--batch_size", 1) == 0
    first, second = (pydicom.dcmread(tmp_path / name / "ST0" / "IM0.sr.dcm") for name in "ab")
    assert first.SOPInstanceUID == second.SOPInstanceUID
    assert first.SeriesInstanceUID == second.SeriesInstanceUID


def test_refused_images_are_listed_and_the_exit_status_says_so(
    images: Path, tmp_path: Path, trained_model: Path, scans: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    Image.new("CMYK", (8, 8)).save(images / "print.jpg")
    scans.dicom(images / "scout", GREY, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    words = (trained_model, images, "--output", out)
    assert run(*words) == 3
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0] == f"Classified 3 images, refused 2: {out}"
    with open(out / "refused.csv", newline="") as file:
        assert [row[:2] for row in csv.reader(file)] == [
            ["image", "code"],
            ["print.jpg", "unsupported_kind"],
            ["scout", "localizer"],
        ]
    assert [record["code"] for record in listed(out)["refused"]] == ["unsupported_kind", "localizer"]
    assert json.loads((out / "scout.result.json").read_text())["refused"] == "localizer"
    assert run(*words, "--allow_refused") == 0
    assert run(*words, "--presentation#accept", "['localizer']") == 3
    assert [record["image"] for record in listed(out)["refused"]] == ["print.jpg"]


def test_pictures_are_known_by_content_and_all_else_is_named(tmp_path: Path, trained_model: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    kinds = {"a.jfif": "JPEG", "b.JPE": "JPEG", "c.jp2": "JPEG2000", "noext": "PNG", "w": "WEBP", "z.page": "TIFF"}
    for name, kind in kinds.items():
        with open(folder / name, "wb") as file:
            Image.fromarray(PICTURES[0]).save(file, kind)
    (folder / "d.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    (folder / "notes.txt").write_text("no image")
    (folder / "task.json").write_text("{}")  # mercure's own
    assert run(trained_model, folder, "--output", out) == 3
    content = listed(out)
    assert [record["image"] for record in content["images"]] == sorted(kinds)
    assert [(record["image"], record["code"]) for record in content["refused"]] == [
        ("d.heic", "unsupported_kind"),
        ("notes.txt", "unsupported_kind"),
    ]


@pytest.mark.parametrize(
    "odd", [b"caf\xe9.png", b"x" * 236 + b".png", b"x" * 251 + b".png"], ids=["bytes", "240", "255"]
)
def test_an_odd_name_loses_nobodys_result(tmp_path: Path, trained_model: Path, odd: bytes) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name, kind in ((b"good.png", "RGB"), (odd, "RGB"), (b"bad-" + odd[4:], "CMYK")):
        with open(os.path.join(os.fsencode(folder), name), "wb") as file:
            Image.fromarray(PICTURES[0]).convert(kind).save(file, "JPEG")
    assert run(trained_model, folder, "--output", out) == 3
    assert len(listed(out)["images"]) == 2 and len(listed(out)["refused"]) == 1
    assert len(list(out.glob("*.result.json"))) == 3
    with open(out / "refused.csv", encoding="utf-8", newline="") as file:
        assert len(list(csv.reader(file))) == 2


def test_a_file_in_the_place_of_a_folder_is_said(
    images: Path, tmp_path: Path, trained_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(trained_model, images / "a.png", "--output", tmp_path / "out") == 1
    said = capsys.readouterr().err
    assert said == f"Error: image folder {images}/a.png is a file: give the folder that it is in (IMAGES)\n"


def test_our_own_results_are_never_input(images: Path, tmp_path: Path, trained_model: Path) -> None:
    words = ("--saliency", "dicom")
    assert run(trained_model, images, "--output", tmp_path / "first", *words) == 0
    for path in (tmp_path / "first").rglob("*.dcm"):
        shutil.copy(path, images)
    accepted = ("--presentation#accept", "derived,burned_in,localizer,missing_identifiers,unknown_orientation")
    assert run(trained_model, images, "--output", tmp_path / "again", *words, *accepted) == 3
    content = listed(tmp_path / "again")
    assert [(record["image"], record["code"]) for record in content["refused"]] == [
        ("IM0.saliency.dcm", "own_result"),
        ("IM0.sr.dcm", "own_result"),
    ]
    assert len(content["images"]) == 3


def test_saliency_is_drawn_when_asked_for(
    images: Path, tmp_path: Path, trained_model: Path, is_valid_dicom: Any
) -> None:
    words = (trained_model, images, "--saliency")
    assert run(*words, "png", "--output", tmp_path / "png") == 0
    names = sorted(path.relative_to(tmp_path / "png").as_posix() for path in (tmp_path / "png").rglob("*.saliency.*"))
    assert names == ["ST0/IM0.saliency.png", "a.png.saliency.png", "deep/b.jpg.saliency.png"]
    drawn = Image.open(tmp_path / "png" / "a.png.saliency.png")
    assert drawn.width > 2 * 50 and drawn.height > 40
    assert run(*words, "dicom", "--output", tmp_path / "dicom") == 0
    (capture,) = (tmp_path / "dicom").rglob("*.saliency.dcm")
    assert is_valid_dicom(capture) and is_valid_dicom(capture.with_name("IM0.sr.dcm"))
    shown = pydicom.dcmread(capture).SOPInstanceUID
    assert str(shown) in str(pydicom.dcmread(capture.with_name("IM0.sr.dcm")))


def test_the_threshold_makes_results_indeterminate(images: Path, tmp_path: Path, trained_model: Path) -> None:
    words = (trained_model, images, "--output", tmp_path / "out")
    assert run(*words, "--threshold", 1, "--temperature", 50) == 0
    content = listed(tmp_path / "out")
    assert (content["model"]["threshold"], content["model"]["temperature"]) == (1.0, 50.0)
    for record in content["images"]:
        assert record["indeterminate"]
        assert list(record["probabilities"].values()) == pytest.approx([1 / 3] * 3, abs=0.1)


def test_monai_deploy_names_the_folders(
    images: Path, tmp_path: Path, trained_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(trained_model, tmp_path / "models" / "skin")  # a folder a model
    monkeypatch.setenv("HOLOSCAN_INPUT_PATH", str(images))
    monkeypatch.setenv("HOLOSCAN_OUTPUT_PATH", str(tmp_path / "out"))
    monkeypatch.setenv("HOLOSCAN_MODEL_PATH", str(tmp_path / "models"))
    assert run() == 0
    assert len(listed(tmp_path / "out")["images"]) == 3
    assert run("--output", tmp_path / "elsewhere") == 0  # the command line wins
    assert len(listed(tmp_path / "elsewhere")["images"]) == 3


def task(settings: Any) -> str:
    """Return mercure's task.json for a module with these settings."""
    process = {"module_name": "skin", "settings": settings, "retain_input_images": False, "output": None}
    return json.dumps({"id": "1", "info": {"patient_name": "Secretname^A", "mrn": "PATIENT-1"}, "process": process})


def test_mercure_names_the_folders_and_the_settings(
    images: Path, tmp_path: Path, trained_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MERCURE_IN_DIR", str(images))
    monkeypatch.setenv("MERCURE_OUT_DIR", str(tmp_path / "out"))
    monkeypatch.setenv("HOLOSCAN_MODEL_PATH", str(trained_model))
    Image.new("CMYK", (8, 8)).save(images / "print.jpg")
    presentation = {"accept": ["derived", "burned_in"], "window": [2000, 4000]}
    settings = {"threshold": 1.0, "allow_refused": True, "presentation": presentation, "saliency": "png", "workers": 1}
    (images / "task.json").write_text(task(settings))
    assert run() == 0
    content = listed(tmp_path / "out")
    assert content["model"]["threshold"] == 1.0
    assert [record["image"] for record in content["images"]] == ["ST0/IM0", "a.png", "deep/b.jpg"]
    assert not list((tmp_path / "out").rglob("*.saliency.png")), "all are indeterminate"
    text = (tmp_path / "out" / "predictions.json").read_text()
    assert "Secretname" not in text and "PATIENT-1" not in text
    assert run("--threshold", 0) == 0  # the command line wins
    assert listed(tmp_path / "out")["model"]["threshold"] == 0.0
    # of a chain it does not say which module runs
    (images / "task.json").write_text(json.dumps({"process": [{"settings": {"sigma": 7}}, {"settings": {"k": 1}}]}))
    assert run() == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (task({"sigma": 7}), "unknown setting 'sigma' in {images}/task.json: choose among model, "),
        (task({"output": "/elsewhere"}), "unknown setting 'output' in {images}/task.json"),
        ("{", "cannot read the module's settings in {images}/task.json: it must be mercure's task.json"),
        ("[1]", "cannot read the module's settings in {images}/task.json"),
        (task("all"), "cannot read the module's settings in {images}/task.json"),
        (task({"workers": 0}), "setting 'workers' in {images}/task.json is 0: it takes a whole number from 1"),
    ],
)
def test_settings_that_mean_nothing_are_named(
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    content: str,
    message: str,
) -> None:
    monkeypatch.setenv("MERCURE_IN_DIR", str(images))
    (images / "task.json").write_text(content)
    assert run("--output", tmp_path / "out") == 1
    assert capsys.readouterr().err.startswith("Error: " + message.format(images=images))
    assert not (tmp_path / "out").exists()


def test_a_user_without_a_name_may_classify(
    images: Path, tmp_path: Path, trained_model: Path, python: Callable[..., Any]
) -> None:
    nameless = (
        "import os, pwd, runpy, sys\n"
        "for name in ('HOME', 'LOGNAME', 'USER', 'LNAME', 'USERNAME'): os.environ.pop(name, None)\n"
        "pwd.getpwuid = {}.__getitem__  # as in a container run with --user 12345\n"
        "runpy.run_module('scripts.commands', run_name='__main__', alter_sys=True)"
    )
    words = (trained_model, images, "--output", tmp_path / "out", "--device", "cpu")
    done = python(["-c", nameless, "classify", *words])
    assert done.returncode == 0, done.stderr
    assert len(listed(tmp_path / "out")["images"]) == 3


MISTAKES = {
    "no images": (["{model}"], "no folder of images: name one (classify RUN IMAGES)"),
    "missing": (["{model}", "{out}"], "image folder {out} is missing: give one that exists"),
    "empty": (["{model}", "{empty}", "--output", "{out}"], "image folder {empty} has no images: put some there (PNG, "),
    "within": (["{model}", "{images}", "--output", "{images}/out"], "output folder {images}/out and image folder"),
    "same": (["{model}", "{images}", "--output", "{images}"], "output folder {images} and image folder {images} lie"),
    "file": (["{model}", "{images}", "--output", "{file}"], "output folder {file} is a file: give a folder"),
    "no model": (
        ["{empty}", "{images}", "--output", "{out}"],
        "no trained model in {empty}: give a run or a model's folder (--model RUN)",
    ),
    "many models": (
        ["{models}", "{images}", "--output", "{out}"],
        "{models} holds several models: give one of first, second with its folder (--model)",
    ),
    "unknown setting": (
        ["{model}", "{images}", "--output", "{out}", "--presentation#windows", "1,2"],
        "unknown setting 'windows': choose among window, accept",
    ),
    "device": (
        ["{model}", "{images}", "--output", "{out}", "--device", "nothing"],
        "device nothing cannot be used",
    ),
}


@pytest.mark.parametrize(("words", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line_and_leaves_nothing(
    images: Path,
    tmp_path: Path,
    trained_model: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    places = {name: tmp_path / name for name in ("out", "empty", "models", "file")}
    places["empty"].mkdir()
    places["file"].touch()
    for name in ("first", "second"):
        (places["models"] / name).mkdir(parents=True)
        (places["models"] / name / "network.json").touch()
    before = snapshot(tmp_path)
    given = [word.format(images=images, model=trained_model, **places) for word in words]
    assert run(*given) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("Error: " + message.format(images=images, **places))
    assert printed.err.count("\n") == 1
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    "words",
    [["--batch_size", "0"], ["--workers", "-1"], ["--saliency", "jpg"], ["--colour", "1"], ["--threshold", "7"]],
)
def test_an_unknown_option_ends_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("model", "images", *words) == 2
    assert words[0] in capsys.readouterr().err.splitlines()[-1]


def environment(folder: Path) -> dict[str, str]:
    """Return an environment whose every usual place to write is below a folder."""
    places = {name: str(folder / name.lower()) for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")}
    for place in places.values():
        Path(place).mkdir(parents=True)
    kept = {name: value for name, value in os.environ.items() if name != "MPLCONFIGDIR"}
    return {**kept, **places, "PYTHONPATH": str(BUNDLE), "OMP_NUM_THREADS": "1"}


def test_nothing_is_written_but_the_output_and_nobody_is_named(
    images: Path, tmp_path: Path, trained_model: Path, scans: Any
) -> None:
    scans.dicom(images / "scout", GREY, ImageType=["ORIGINAL", "LOCALIZER"], PatientName="Secretname^B")
    shutil.copytree(trained_model, tmp_path / "models")
    variables = environment(tmp_path / "places")
    (tmp_path / "here").mkdir()
    before = snapshot(tmp_path)
    bundle = snapshot(BUNDLE)
    command = [sys.executable, "-m", "scripts.commands", "classify", str(tmp_path / "models"), str(images)]
    command += ["--output", str(tmp_path / "out"), "--saliency", "dicom"]
    done = subprocess.run(command, cwd=tmp_path / "here", env=variables, capture_output=True, text=True)
    assert done.returncode == 3
    assert done.stdout.splitlines()[0] == f"Classified 3 images, refused 1: {tmp_path}/out"
    after = snapshot(tmp_path)
    assert {name: content for name, content in after.items() if not name.startswith("out")} == before
    assert snapshot(BUNDLE) == bundle

    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    named = [path.name for path in written if any(word in path.read_bytes() for word in (b"Secretname", b"PATIENT-1"))]
    assert sorted(named) == ["IM0.saliency.dcm", "IM0.sr.dcm"]
    assert not any(word in done.stdout + done.stderr for word in ("Secretname", "PATIENT-1", "ACC-1"))


@pytest.mark.parametrize("out", ["{file}/out", "/proc", "/proc/out"])  # stop root too, whom permissions do not
def test_an_output_folder_that_cannot_be_written_is_one_line(
    images: Path, tmp_path: Path, trained_model: Path, capsys: pytest.CaptureFixture[str], out: str
) -> None:
    (tmp_path / "file").touch()
    out = out.format(file=tmp_path / "file")
    assert run(trained_model, images, "--output", out) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"Error: cannot write {out}: ")
