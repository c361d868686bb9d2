"""DICOM and NIfTI data sets: what is found, how patients are kept apart, and what is never written."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from scripts.imaging.transforms import read_rgb
from scripts.learning.sources import Group, LabelsCsv, ScanFolders, Scans
from scripts.learning.tasks import check_images
from scripts.utils.errors import UserError

PIXELS = np.arange(48, dtype=np.uint8).reshape(6, 8)


@pytest.fixture
def archive(tmp_path: Path, scans: Any) -> Path:
    """Two classes of three patients with two slices each, as an archive exports them, and files that are no images."""
    for label, name in enumerate(("benign", "malignant")):
        for patient in range(3):
            for number in range(2):
                scans.dicom(
                    tmp_path / name / f"ST{patient}" / "SE0" / f"IM{number}",
                    PIXELS + 40 * label + number,
                    PatientID=f"ID-{label}-{patient}",
                    SeriesInstanceUID=f"1.2.{label + 1}.{patient + 1}",
                    ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
                    ImagePositionPatient=[0, 0, -number],
                )
        (tmp_path / name / "notes.txt").write_text("no image")
        (tmp_path / name / ".hidden").write_bytes(b"\0" * 128 + b"DICM")
    return tmp_path


def groups_of(root: Path, **arguments: Any) -> list[Group]:
    return Scans(ScanFolders(str(root)), **arguments).groups()


def test_files_are_found_by_content_at_any_depth(archive: Path) -> None:
    (group,) = groups_of(archive)
    assert group.classes == ("benign", "malignant")
    assert [len(items) for items in group.train.values()] == [6, 6]
    assert not any(group.test.values())
    assert check_images(group.train["benign"]) == group.train["benign"]


def test_images_of_a_patient_belong_together_and_nobody_is_named(archive: Path) -> None:
    (group,) = groups_of(archive)
    items = [item for items in group.train.values() for item in items]
    assert len({item["group"] for item in items}) == 6
    assert all(len({item["group"] for item in items[at : at + 2]}) == 1 for at in range(0, 12, 2))
    assert "ID-" not in "".join(item["group"] for item in items)


def test_the_key_decides_what_a_patient_is_called(archive: Path) -> None:
    def names(key: str | None) -> list[str]:
        (group,) = groups_of(archive, patient_key=key)
        return [item["group"] for item in group.train["benign"]]

    assert names("secret") == names("secret") != names("other")
    assert names(None) != names(None)


def test_a_series_gives_its_middle_file(archive: Path) -> None:
    (group,) = groups_of(archive, series="middle")
    images = [Path(item["image"]) for item in group.train["benign"]]
    assert [(path.parts[-3], path.name) for path in images] == [("ST0", "IM0"), ("ST1", "IM0"), ("ST2", "IM0")]
    with pytest.raises(UserError, match="series is 'first'"):
        groups_of(archive, series="first")


def divided(archive: Path, shared: int) -> SimpleNamespace:
    """Move the folders of train and test where they belong, with ``shared`` patients on both sides."""
    root = archive / "divided"
    for name in ("benign", "malignant"):
        for patient in range(3):
            sides = ["train" if patient else "test"] if shared <= 0 else ["train", "test"]
            shared -= 1
            for side, number in zip(sides * 2, (0, 1), strict=False):
                target = root / side / name / f"ST{patient}" / f"IM{number}"
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes((archive / name / f"ST{patient}" / "SE0" / f"IM{number}").read_bytes())
    return SimpleNamespace(root=root)


def test_a_division_by_patient_is_taken(archive: Path) -> None:
    (group,) = groups_of(divided(archive, shared=0).root)
    assert [len(items) for items in (*group.train.values(), *group.test.values())] == [4, 4, 2, 2]


@pytest.mark.parametrize("shared", [1, 2, 5])
def test_a_division_that_shares_patients_is_refused_with_the_count(archive: Path, shared: int) -> None:
    with pytest.raises(UserError, match=f"^{shared} of 6 patients are in both training and test: "):
        groups_of(divided(archive, shared).root)


def test_labels_may_come_from_a_table(archive: Path) -> None:
    rows = [
        f"{name}/ST{patient}/SE0/IM{number},{name},{'train' if patient else 'test'}"
        for name in ("benign", "malignant")
        for patient in range(3)
        for number in range(2)
    ]
    (archive / "labels.csv").write_text("\n".join(["path,label,split", *rows]))
    (group,) = Scans(LabelsCsv(str(archive)), {"window": "range"}).groups()
    assert [len(items) for items in (*group.train.values(), *group.test.values())] == [4, 4, 2, 2]
    assert group.test["benign"][0]["image"].endswith("/benign/ST0/SE0/IM0#?window=range")
    moved = [row.replace("train", "test") if "benign/ST2/SE0/IM1" in row else row for row in rows]
    (archive / "labels.csv").write_text("\n".join(["path,label,split", *moved]))
    with pytest.raises(UserError, match="^1 of 6 patients"):
        Scans(LabelsCsv(str(archive))).groups()


def test_what_cannot_be_read_is_listed_so_that_its_check_says_why(archive: Path) -> None:
    broken = archive / "benign" / "ST0" / "SE0" / "IM0"
    broken.write_bytes(broken.read_bytes()[:-60])
    (group,) = groups_of(archive)
    with pytest.raises(UserError, match=r"1 of 6 images cannot be used \(corrupt_pixels 1\), the first: image .*/IM0"):
        check_images(group.train["benign"])
    assert len(check_images(group.train["benign"], skip_unreadable=True)) == 5


def test_slices_of_volumes_stay_together(tmp_path: Path, scans: Any) -> None:
    for name in ("a", "b"):
        for number in range(2):
            scans.nifti(tmp_path / name / f"{number}.nii.gz", np.full((4, 5, 6), 10 * number, np.uint8))
    (group,) = groups_of(tmp_path, presentation={"pictures": [1, 6, 2], "axis": 2})
    items = group.train["a"]
    assert [item["image"].rpartition("#")[2] for item in items] == ["2/1", "2/3", "2/5"] * 2
    assert [item["group"] == items[0]["group"] for item in items] == [True] * 3 + [False] * 3
    assert read_rgb(items[3]["image"]).shape == (5, 4, 3)


@pytest.mark.parametrize("missing", ["nowhere", "empty", "bare"])
def test_a_folder_without_scans_is_refused(tmp_path: Path, missing: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bare" / "class").mkdir(parents=True)
    words = {"nowhere": "is missing", "empty": "has no folders", "bare": "has no DICOM or NIfTI files"}
    with pytest.raises(UserError, match=words[missing]):
        groups_of(tmp_path / missing)
