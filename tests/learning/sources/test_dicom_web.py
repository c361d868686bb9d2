"""A data set in an archive, Orthanc: queries are classes, each image is fetched once, and no more than fits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scripts.learning.sources import DicomWeb, Group, Scans
from scripts.utils.errors import UserError

QUERIES = {"nevus": {"StudyDescription": "NEVUS"}, "melanoma": {"StudyDescription": "MELANOMA"}}


@pytest.fixture
def archive(make_orthanc: Callable[..., Any], scans: Any, tmp_path: Path) -> Any:
    """An archive with three images of nevi, of two patients, and two of melanomas."""
    orthanc = make_orthanc()
    rows = [("NEVUS", "A"), ("NEVUS", "A"), ("NEVUS", "B"), ("MELANOMA", "C"), ("MELANOMA", "D")]
    for number, (study, patient) in enumerate(rows):
        file = tmp_path / f"{number}.dcm"
        pixels = np.full((8, 8), 100 * number, np.uint16)
        scans.dicom(file, pixels, StudyDescription=study, PatientID=patient)
        orthanc.ask("/instances", file.read_bytes())
    return orthanc


def source(archive: Any, root: Path, **others: Any) -> DicomWeb:
    return DicomWeb(**{"url": archive.web_url, "queries": QUERIES, "root": str(root), "max_bytes": 10**7, **others})


def files(group: Group) -> dict[str, list[str]]:
    return {name: [item["image"] for item in items] for name, items in group.train.items()}


@pytest.mark.parametrize("page", [1, 1000])
def test_queries_are_classes_and_an_image_is_fetched_once(page: int, archive: Any, tmp_path: Path) -> None:
    (group,) = source(archive, tmp_path / "held", page=page).groups()
    found = files(group)
    assert {name: len(paths) for name, paths in found.items()} == {"nevus": 3, "melanoma": 2}
    assert list(group.classes) == list(QUERIES)
    Path(found["nevus"][0]).write_bytes(b"known")
    Path(found["nevus"][1]).unlink()
    (again,) = source(archive, tmp_path / "held").groups()
    assert files(again) == found
    assert Path(found["nevus"][0]).read_bytes() == b"known", "what is there is not fetched"
    assert Path(found["nevus"][1]).is_file()
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "held").iterdir() if path.read_bytes() != b"known"} == {
        0o600
    }


def test_the_images_are_those_of_the_archive_and_patients_are_told_apart(archive: Any, tmp_path: Path) -> None:
    (group,) = Scans(source(archive, tmp_path / "held")).groups()
    nevi, melanomas = ([item["group"] for item in items] for items in group.train.values())
    assert (len(set(nevi)), len(set(melanomas)), len({*nevi, *melanomas})) == (2, 2, 4)
    stored = {instance.SOPInstanceUID: instance for instance in archive.find()}
    held = {path.stem for path in (tmp_path / "held").iterdir()}
    assert held == set(stored)


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ({"queries": {}}, "a query a class, two classes at least"),
        ({"queries": {**QUERIES, "wart": {"StudyDescription": "WART"}}}, "the query of class wart finds nothing"),
        ({"queries": {**QUERIES, "all": {}}}, "find the same images"),
        ({"max_bytes": 2000}, r"more than the 2000 bytes that .*held may hold"),
        ({"max_answer": 500}, "it has more than 500 bytes"),
        ({"url": "http://127.0.0.1:9/dicom-web"}, "does not answer as a DICOMweb server should"),
        ({"url": "nowhere"}, "'nowhere' is no address"),
    ],
)
def test_what_cannot_be_a_data_set_is_refused(others: dict[str, Any], said: str, archive: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        source(archive, tmp_path / "held", **others).groups()
