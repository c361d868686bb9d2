"""The tables of the ISIC challenges, on small ones written as the originals are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from scripts.learning.sources import IsicChallenge
from scripts.utils.errors import UserError


def _image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)


def _isic(root: Path, **changes: Any) -> IsicChallenge:
    for number in range(4):
        _image(root / "input" / f"ISIC_{number}.jpg")
    truth = "image,MEL,NV,UNK\nISIC_0,1.0,0.0,0.0\nISIC_1,0.0,1.0,0.0\nISIC_2,1.0,0.0,0.0\nISIC_3,0.0,1.0,0.0\n"
    (root / "truth.csv").write_text(changes.get("truth", truth))
    lesions = "image,age_approx,lesion_id\nISIC_0,50,L1\nISIC_1,,L2\nISIC_2,30,L1\nISIC_3,40,\n"
    (root / "lesions.csv").write_text(changes.get("lesions", lesions))
    return IsicChallenge(str(root), "input", "truth.csv", "lesions.csv")


def test_an_isic_table_gives_classes_and_lesions(tmp_path: Path) -> None:
    (group,) = _isic(tmp_path).groups()
    assert group.classes == ("MEL", "NV")
    assert group.train["MEL"] == [
        {"image": str(tmp_path / f"input/ISIC_{number}.jpg"), "group": "L1"} for number in (0, 2)
    ]
    assert group.train["NV"][1] == {"image": str(tmp_path / "input/ISIC_3.jpg")}
    assert group.test == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"truth": "image,MEL,NV\nISIC_0,1,1\n"}, "line 2 of .*truth.csv has 2 classes that are 1: it needs one"),
        ({"truth": "image,MEL,NV\nISIC_9,1,0\n"}, "line 2 of .*truth.csv names a missing image, .*ISIC_9.jpg"),
        ({"truth": "name,MEL\n"}, "truth.csv has no column 'image'"),
        ({"truth": "image,MEL\n"}, "truth.csv names no images"),
        ({"lesions": "image,age\nISIC_0,4\n"}, "lesions.csv has no column 'lesion_id'"),
    ],
)
def test_a_wrong_isic_table_is_named(tmp_path: Path, changes: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        _isic(tmp_path, **changes).groups()


def test_missing_isic_images_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"data folder {tmp_path}/input is missing: get .*isic-archive"):
        IsicChallenge(str(tmp_path), "input", "truth.csv").groups()
