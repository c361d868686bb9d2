"""One picture a class, for people to look at."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scripts.learning.planning import write_contact_sheets
from scripts.learning.planning.contact_sheet import contact_sheet, sheet_names
from scripts.learning.sources import Item
from scripts.learning.tasks import Task
from scripts.utils.errors import UserError

TILE = 10


def shades(folder: Path, label: int, values: Sequence[int], size: tuple[int, int] = (20, 20)) -> tuple[Item, ...]:
    """Write images of one colour each, ``(shade, 0, 255)``; captions have none."""
    folder.mkdir(parents=True, exist_ok=True)
    for value in values:
        Image.new("RGB", size, (value, 0, 255)).save(folder / f"{value}.png")
    return tuple({"image": str(folder / f"{value}.png"), "label": label} for value in values)


def places(sheet: Image.Image, shade: int) -> np.ndarray:
    """Return row and column of each pixel of a shade."""
    return np.argwhere((np.array(sheet.convert("RGB")) == (shade, 0, 255)).all(axis=2))


@pytest.fixture
def task(tmp_path: Path) -> Task:
    """Two classes; a shade below 200 is a training image, one above a test image; the second one is broken."""
    train, test = shades(tmp_path / "a", 0, [20, 40, 60, 80, 100, 120]), shades(tmp_path / "b", 0, [210, 220])
    other = shades(tmp_path / "c", 1, [30])
    Path(train[1]["image"]).write_text("no image")
    return Task("set", ("set/a", "b"), 0, train + other, test)


def readable(task: Task) -> set[str]:
    return {item["image"] for item in (*task.train, *task.test)} - {task.train[1]["image"]}


def test_training_stands_above_test_and_broken_images_are_left_out(task: Task, tmp_path: Path) -> None:
    write_contact_sheets([task], readable(task), str(tmp_path / "plan"), images=9, columns=3, tile=TILE)
    folder = tmp_path / "plan" / "contact_sheets"
    assert sorted(path.name for path in folder.iterdir()) == ["set-a.png", "set-b.png"]
    with Image.open(folder / "set-a.png") as sheet:
        found = {shade: places(sheet, shade) for shade in (20, 40, 60, 80, 100, 120, 210, 220)}
    assert [shade for shade, where in found.items() if len(where) != TILE * TILE] == [40]
    corners = [tuple(where.min(axis=0)) for shade, where in found.items() if shade != 40]
    assert corners == sorted(corners)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_of_a_volume_the_middle_slice_is_shown(tmp_path: Path) -> None:
    volume = np.zeros((5, TILE, TILE), np.uint8)
    volume[2] = 77
    np.save(tmp_path / "volume.npy", volume)
    sheet = contact_sheet("title", {"training": [str(tmp_path / "volume.npy")]}, 1, 1, TILE)
    assert (np.array(sheet.convert("RGB")) == 77).all(axis=2).sum() == TILE * TILE


def test_images_are_chosen_at_even_distances(tmp_path: Path) -> None:
    images = [item["image"] for item in shades(tmp_path, 0, range(10, 210, 20))]
    sheet = contact_sheet("title", {"training": images}, 5, 8, TILE)
    assert [shade for shade in range(10, 210, 20) if len(places(sheet, shade))] == [10, 50, 90, 130, 170]


def test_the_shape_of_an_image_is_kept(tmp_path: Path) -> None:
    images = [item["image"] for item in shades(tmp_path, 0, [90], size=(40, 20))]
    where = places(contact_sheet("a title of\ntwo lines and 肺", {"training": images}, 1, 1, TILE), 90)
    assert (np.ptp(where, axis=0) + 1).tolist() == [TILE / 2, TILE]


def test_a_new_plan_leaves_no_sheet_of_an_old_one(task: Task, tmp_path: Path) -> None:
    settings = {"folder": str(tmp_path), "columns": 3, "tile": TILE}
    write_contact_sheets([task], readable(task), images=2, **settings)  # type: ignore[arg-type]
    assert len(list((tmp_path / "contact_sheets").iterdir())) == 2
    write_contact_sheets([task], readable(task), images=0, **settings)  # type: ignore[arg-type]
    assert list((tmp_path / "contact_sheets").iterdir()) == []


def test_a_class_without_a_readable_image_has_no_sheet(task: Task, tmp_path: Path) -> None:
    kept = {item["image"] for item in task.test}
    write_contact_sheets([task], kept, str(tmp_path / "plan"), images=2, columns=3, tile=TILE)
    assert [path.name for path in (tmp_path / "plan" / "contact_sheets").iterdir()] == ["set-a.png"]


def test_two_classes_never_share_a_file_and_names_are_safe() -> None:
    classes = ("a/b", "a b", "A:b", "a_b-2", "../..", "." * 5, "肺" * 200, "肺" * 201, "b|c\n")
    names = list(sheet_names([Task("x/..", classes, 0, (), ()), Task("x", ("a?b",), len(classes), (), ())]).values())
    assert len({name.casefold() for name in names}) == len(classes) + 1
    assert [name for name in names if set(name) & set('/\\:*?"<>|\n\0') or name.startswith(".")] == []
    assert max(len(name.encode()) for name in names) < 250


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"images": -1}, "sheet_images is -1: give 0 or more"),
        ({"columns": 0}, "sheet_columns is 0: give 1 or more"),
        ({"tile": 0}, "sheet_tile is 0: give 8 or more"),
    ],
)
def test_a_number_out_of_range_is_refused(setting: dict[str, int], message: str, task: Task, tmp_path: Path) -> None:
    values = {"images": 2, "columns": 3, "tile": TILE, **setting}
    with pytest.raises(UserError, match=message):
        write_contact_sheets([task], readable(task), str(tmp_path / "plan"), **values)
    assert not (tmp_path / "plan").exists()
