"""Training, evaluating and classifying DICOM and NIfTI with the real commands; nobody is named anywhere."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scripts.commands.app import main
from scripts.commands.forget import forget
from scripts.deploy.versions import VersionStore

DICOM = ("configs/train.json", "configs/datasets/dicom.yaml")
NIFTI = ("configs/train.json", "configs/datasets/nifti.yaml")
SYNTAXES = ["1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.90"]
NAME, IDENTIFIER, ACCESSION = "Secretname", "PATIENT-4711-", "ACCESSION-0815-"
SETTINGS: dict[str, Any] = {
    "backbone": "mobilenet_v2",
    "network_def#sites": ["features.3"],
    "image_size": 40,
    "backbone_epochs": 1,
    "adapter_epochs": 1,
    "finetune_epochs": 1,
    "memory_size": 8,
    "batch_size": 8,
    "device": "cpu",
}


def picture(label: int, number: int) -> np.ndarray:
    """Draw a CT-like slice in stored values: soft tissue, with stripes of a class's own direction and distance."""
    rows, columns = np.mgrid[:44, :40]
    stripes = np.sin((rows if label % 2 else columns) * (0.4 + 0.3 * (label // 2)))
    noise = np.random.default_rng([label, number]).normal(0, 10, rows.shape)
    return (1064 + 80 * stripes + noise).astype(np.int16)


def write_dicom(root: Path, scans: Any) -> None:
    for label in range(4):
        for number in range(6):
            split = "test" if number >= 4 else "train"
            scans.dicom(
                root / split / f"class{label}" / f"ST{number}" / "IM0",
                picture(label, number),
                SYNTAXES[number % len(SYNTAXES)],
                RescaleSlope=1,
                RescaleIntercept=-1024,
                PatientName=f"{NAME}^{number}",
                PatientID=f"{IDENTIFIER}{label}-{number}",
                AccessionNumber=f"{ACCESSION}{number}",
            )


def traces(folders: list[Path], printed: str) -> list[str]:
    """Return where something that names a patient stands, other than in a DICOM report."""
    words = [word.encode() for word in (NAME, IDENTIFIER, ACCESSION)]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file() and path.suffix != ".dcm"]
    assert len(files) > 10
    found = [str(path) for path in files if any(word in path.read_bytes() for word in words)]
    return found + [word.decode() for word in words if word in printed.encode()]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, bundle_run: Callable[..., Any], scans: Any) -> dict[str, Any]:
    """A model of two tasks of DICOM files, one of which is broken, in a fixed window."""
    folder = tmp_path_factory.mktemp("dicom")
    write_dicom(folder / "images", scans)
    broken = folder / "images" / "train" / "class0" / "ST0" / "IM0"
    broken.write_bytes(broken.read_bytes()[:-300])
    overrides = {
        **SETTINGS,
        "dataset_dir": folder / "images",
        "output_dir": folder / "run",
        "split": 2,
        "image#presentation#window": "40,400",
        "memory#exemplars": "copies",
    }
    done = bundle_run(DICOM, {**overrides, "tasks#skip_unreadable": True, "limits#num_workers": 1})
    return {"folder": folder, "broken": broken, "overrides": overrides, "printed": done.stdout + done.stderr}


def test_dicom_is_learnt_in_tasks(trained: dict[str, Any]) -> None:
    metrics = json.loads((trained["folder"] / "run" / "metrics.json").read_text())
    assert metrics["classes"] == [f"class{label}" for label in range(4)]
    assert len(metrics["accuracy_matrix"]) == 2
    assert f"Left out: image {trained['broken']}#?window=40,400 is refused, corrupt_pixels" in trained["printed"]


def test_a_broken_file_stops_the_training_with_its_code(
    trained: dict[str, Any], refusal: Callable[..., str], tmp_path: Path
) -> None:
    line = refusal({**trained["overrides"], "output_dir": tmp_path / "run"}, DICOM)
    assert line.startswith("Error: 1 of 8 images cannot be used (corrupt_pixels 1), the first: image ")
    assert not any(word in line for word in (NAME, IDENTIFIER, ACCESSION))


def test_the_presentation_travels_with_the_model(trained: dict[str, Any]) -> None:
    network = json.loads((trained["folder"] / "run" / "network.json").read_text())
    assert network["image"]["presentation"]["window"] == [40, 400]
    tests = json.loads((trained["folder"] / "run" / "tasks.json").read_text())[0]["test"]
    assert all(item["image"].endswith("#?window=40,400") for item in tests)


def test_copied_exemplars_are_pictures_without_a_header(trained: dict[str, Any]) -> None:
    copies = list((trained["folder"] / "run" / "exemplars").iterdir())
    assert {path.suffix for path in copies} == {".png"}
    assert len(copies) == 8


def test_copied_exemplars_are_forgotten_by_the_file_they_came_from(
    trained: dict[str, Any], linked_copy: Any, tmp_path: Path
) -> None:
    run = linked_copy(trained["folder"] / "run", tmp_path / "run")
    files = [str(path) for path in (trained["folder"] / "images" / "train" / "class1").rglob("IM0")]
    assert forget(run, files).startswith("Removed 2 of 8 exemplars")
    assert len(list((run / "exemplars").iterdir())) == 6


def test_evaluation_and_classification_agree_and_only_reports_name_anybody(
    trained: dict[str, Any], bundle_run: Callable[..., Any], scans: Any, is_valid_dicom: Any, tmp_path: Path
) -> None:
    folder = trained["folder"]
    evaluated = bundle_run((*DICOM, "configs/evaluate.json"), {**trained["overrides"], "model": folder / "run"})
    images = folder / "images" / "test"
    scans.dicom(images / "scout", picture(0, 0), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], PatientName=NAME)
    classified = bundle_run(
        ("configs/inference.json",),
        {"model": folder / "run", "dataset_dir": images, "output_dir": tmp_path / "out", "device": "cpu"},
    )
    rows = list(csv.DictReader((tmp_path / "out" / "predictions.csv").open()))
    right = sum(row["image"].split("/")[0] == row["predicted class"] for row in rows)
    assert len(rows) == 8
    assert f"Accuracy {100 * right / len(rows):.1f} %" in evaluated.stdout + evaluated.stderr
    (refused,) = csv.DictReader((tmp_path / "out" / "refused.csv").open())
    assert (refused["image"], refused["code"]) == ("scout", "localizer")
    reports = sorted((tmp_path / "out").rglob("*.dcm"))
    assert len(reports) == 8 and all(is_valid_dicom(path) for path in reports)
    (images / "scout").unlink()
    printed = trained["printed"] + "".join(done.stdout + done.stderr for done in (evaluated, classified))
    assert traces([folder / "run", tmp_path / "out"], printed) == []


def test_what_was_learnt_from_is_copied_without_names(trained: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("dicognito", reason="no dicognito: install the extra [deidentify]")
    VersionStore(tmp_path / "store").begin()
    words = [str(trained["folder"] / "run"), str(tmp_path / "copies"), "--store", str(tmp_path / "store")]
    assert main(["deidentify", *words]) == 1
    assert main(["deidentify", *words, "--burned_in"]) == 0
    copies = list((tmp_path / "copies").glob("*.dcm"))
    assert len(copies) == 4 * 6 - 1  # one is broken
    names = [word.encode() for word in (NAME, IDENTIFIER, ACCESSION)]
    assert not any(name in path.read_bytes() for path in copies for name in names)
    assert traces([tmp_path / "copies", tmp_path / "store", trained["folder"] / "run"], "") == []


def test_shared_patients_stop_the_run(trained: dict[str, Any], refusal: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for name in ("train", "test"):
        (tmp_path / "images" / name).symlink_to(trained["folder"] / "images" / "train")
    line = refusal({**SETTINGS, "dataset_dir": tmp_path / "images", "output_dir": tmp_path / "run"}, DICOM)
    assert line.startswith("Error: 16 of 16 patients are in both training and test: put all images of a patient on one")
    assert not (tmp_path / "run").exists()


def test_nifti_is_learnt_slice_by_slice(run_here: Callable[..., None], scans: Any, tmp_path: Path) -> None:
    for label in range(4):
        for number in range(3):
            voxels = np.stack([picture(label, 3 * number + slice_) for slice_ in range(3)]).T
            split = "test" if number == 2 else "train"
            scans.nifti(tmp_path / "images" / split / f"class{label}" / f"{number}.nii.gz", voxels, "LPI")
    overrides = {**SETTINGS, "dataset_dir": tmp_path / "images", "image#presentation#pictures": "all", "split": 4}
    run_here({**overrides, "output_dir": tmp_path / "run"}, NIFTI)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert len(metrics["accuracy_matrix"]) == 1
    tests = json.loads((tmp_path / "run" / "tasks.json").read_text())[0]["test"]
    assert [item["image"].rpartition("#")[2] for item in tests] == ["2/0", "2/1", "2/2"] * 4


def test_nifti_volumes_are_learnt_whole(run_here: Callable[..., None], scans: Any, tmp_path: Path) -> None:
    for label in range(2):
        for number in range(3):
            voxels = np.stack([picture(label, 3 * number + slice_) for slice_ in range(30)]).T
            split = "test" if number == 2 else "train"
            scans.nifti(tmp_path / "images" / split / f"class{label}" / f"{number}.nii.gz", voxels, "LPI")
    volumes = ("configs/train.json", "configs/networks/resnet18_3d.yaml", "configs/datasets/nifti.yaml")
    overrides = {**SETTINGS, "dataset_dir": tmp_path / "images", "image#presentation#pictures": "only", "split": 2}
    overrides |= {
        "backbone": "resnet10_3d",
        "network_def#sites": ["layer2"],
        "image_size": 12,
        "memory#exemplars": "copies",
    }
    run_here({**overrides, "output_dir": tmp_path / "run"}, volumes)
    assert len(json.loads((tmp_path / "run" / "metrics.json").read_text())["accuracy_matrix"]) == 1
    copies = list((tmp_path / "run" / "exemplars").iterdir())
    assert {path.suffix for path in copies} == {".npy"}
