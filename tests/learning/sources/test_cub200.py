"""CUB-200-2011, on a small tree written as the original is."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from scripts.learning.sources import Cub200
from scripts.utils.errors import UserError


def _image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)


@pytest.fixture
def cub(tmp_path: Path) -> Path:
    root = tmp_path / "CUB_200_2011"
    paths = [f"{label:03d}.Bird/{number}.jpg" for label in (1, 2) for number in range(3)]
    for path in paths:
        _image(root / "images" / path)
    tables: dict[str, list[str]] = {
        "classes.txt": ["1 001.Bird", "2 002.Bird"],
        "images.txt": [f"{number} {path}" for number, path in enumerate(paths, start=1)],
        "image_class_labels.txt": [f"{number} {1 + (number > 3)}" for number in range(1, 7)],
        "train_test_split.txt": [f"{number} {int(number % 3 != 0)}" for number in range(1, 7)],
    }
    for file, lines in tables.items():
        (root / file).write_text("\n".join(lines) + "\n")
    return root


def test_cub200_is_divided_as_its_table_says(cub: Path) -> None:
    (group,) = Cub200(str(cub)).groups()
    assert group.classes == ("001.Bird", "002.Bird")
    for name in group.classes:
        assert group.train[name] == [{"image": str(cub / f"images/{name}/{number}.jpg")} for number in (0, 1)]
        assert group.test[name] == [{"image": str(cub / f"images/{name}/2.jpg")}]


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("images.txt", None, "images.txt is missing: get the data set from https://"),
        ("images.txt", "1 gone/1.jpg\n", "images.txt names the missing image .*gone/1.jpg"),
        ("classes.txt", "1 001.Bird\n", "has the class 2, which classes.txt has not"),
        ("classes.txt", "1\n", "classes.txt has the line '1': each line needs a number and a value"),
        ("train_test_split.txt", "1 1\n", "image 2 .* is not in .*train_test_split.txt"),
    ],
)
def test_a_wrong_cub200_table_is_named(cub: Path, file: str, text: str | None, message: str) -> None:
    (cub / file).unlink()
    if text is not None:
        (cub / file).write_text(text)
    with pytest.raises(UserError, match=message):
        Cub200(str(cub)).groups()
