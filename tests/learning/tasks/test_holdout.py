"""The division of a data set without a split: stratified, by patient, made once and written down."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from scripts.learning.sources import Group, Item, LabelsCsv
from scripts.learning.sources.source import NO_FINDING
from scripts.learning.tasks import HoldOut
from scripts.learning.tasks.holdout import held_out
from scripts.utils.errors import UserError


class Drawer:
    """A source of one group with the given images."""

    def __init__(self, train: dict[str, list[Item]], test: dict[str, list[Item]] | None = None) -> None:
        self.group = Group("clinic", tuple(train), train, test or {})

    def groups(self) -> list[Group]:
        return [self.group]


def _images(name: str, count: int, patients: int | None = None) -> list[Item]:
    items: list[Item] = [{"image": f"{name}-{number}.png"} for number in range(count)]
    return items if patients is None else [{**item, "group": f"p{n % patients}"} for n, item in enumerate(items)]


def _divided(tmp_path: Path, train: dict[str, list[Item]], fraction: float = 0.3, seed: int = 0) -> Group:
    (group,) = HoldOut(Drawer(train), str(tmp_path / "split.csv"), fraction, seed).groups()
    return group


def _names(items: list[Item]) -> set[str]:
    return {item["image"] for item in items}


def test_each_class_is_divided_by_the_fraction(tmp_path: Path) -> None:
    classes = {"a": _images("a", 10), "b": _images("b", 100), "c": _images("c", 2)}
    group = _divided(tmp_path, classes)
    assert {name: len(items) for name, items in group.test.items()} == {"a": 3, "b": 30, "c": 1}
    for name, items in classes.items():
        assert group.train[name] + group.test[name] != items or len(items) == 2
        assert _names(group.train[name]) | _names(group.test[name]) == _names(items)
        assert not _names(group.train[name]) & _names(group.test[name])


def test_the_choice_depends_on_the_seed_alone(tmp_path: Path) -> None:
    choices = [held_out({"a": _images("a", 50)}, 0.2, seed) for seed in (0, 0, 1)]
    assert choices[0] == choices[1] != choices[2]


@pytest.mark.parametrize(("images", "kept"), [(6, 1), (50, 10), (100, 20), (300, 30)])
def test_where_a_share_is_few_images_more_are_kept_but_no_more_than_a_fifth(images: int, kept: int) -> None:
    assert len(held_out({"a": _images("a", images)}, 0.1, least=20)) == kept


def test_a_class_added_later_leaves_the_others_divided_as_they_were() -> None:
    before = held_out({"a": _images("a", 20), "b": _images("b", 30)}, 0.2)
    after = held_out({"a": _images("a", 20), "b": _images("b", 30), "c": _images("c", 10)}, 0.2)
    assert before == {name for name in after if not name.startswith("c")}


@pytest.mark.parametrize("patients", [2, 3, 7, 20])
def test_no_patient_is_on_both_sides(tmp_path: Path, patients: int) -> None:
    group = _divided(tmp_path, {"a": _images("a", 40, patients), "b": _images("b", 25, patients)})
    sides = [{item["group"] for items in part.values() for item in items} for part in (group.train, group.test)]
    assert sides[0] and sides[1] and not sides[0] & sides[1]


def test_the_fraction_is_met_as_far_as_patients_allow(tmp_path: Path) -> None:
    assert len(_divided(tmp_path, {"a": _images("a", 40, 20)}).test["a"]) == 12
    assert len(held_out({"a": _images("a", 40, 8)}, 0.3)) == 10


def test_the_list_names_every_image_once_and_no_patient(tmp_path: Path) -> None:
    group = _divided(tmp_path, {"a": _images("a", 20, 10), "b": _images("b", 20)})
    text = (tmp_path / "split.csv").read_text()
    rows = list(csv.DictReader(text.splitlines()))
    assert list(rows[0]) == ["path", "label", "split"]
    assert "p1" not in text
    for split, part in (("train", group.train), ("test", group.test)):
        for name, items in part.items():
            assert {row["path"] for row in rows if (row["split"], row["label"]) == (split, name)} == _names(items)


def test_images_that_are_added_leave_the_listed_ones_where_they_were(tmp_path: Path) -> None:
    few = {"a": _images("a", 20), "b": _images("b", 20)}
    before = _divided(tmp_path, few)
    after = _divided(tmp_path, {"a": _images("a", 40), "b": _images("b", 20), "c": _images("c", 10)})
    for name in few:
        assert _names(before.test[name]) <= _names(after.test[name])
        assert _names(before.train[name]) <= _names(after.train[name])
    assert [len(after.test[name]) for name in "abc"] == [12, 6, 3]
    assert _divided(tmp_path, {"a": _images("a", 40), "b": _images("b", 20), "c": _images("c", 10)}, 0.5, 9) == after


def test_a_new_image_of_a_known_patient_joins_the_others_of_that_patient(tmp_path: Path) -> None:
    before = _divided(tmp_path, {"a": _images("a", 30, 10)})
    tested = {item["group"] for item in before.test["a"]}
    after = _divided(tmp_path, {"a": _images("a", 60, 10)})
    assert {item["group"] for item in after.test["a"]} == tested


def test_the_list_can_be_read_as_a_data_set(tmp_path: Path) -> None:
    for name in "ab":
        for number in range(10):
            (tmp_path / f"{name}-{number}.png").touch()
    group = _divided(tmp_path, {"a": _images("a", 10), "b": _images("b", 10)})
    (read,) = LabelsCsv(str(tmp_path), "split.csv").groups()
    assert {name: {Path(item["image"]).name for item in items} for name, items in read.test.items()} == {
        name: _names(items) for name, items in group.test.items()
    }


def test_a_source_with_test_images_passes_unchanged(tmp_path: Path) -> None:
    source = Drawer({"a": _images("a", 4)}, {"a": _images("t", 2)})
    assert HoldOut(source, str(tmp_path / "split.csv")).groups() == source.groups()
    assert not (tmp_path / "split.csv").exists()


@pytest.mark.parametrize("items", [_images("a", 1), _images("a", 5, 1)])
def test_a_class_of_one_image_or_one_patient_cannot_be_divided(tmp_path: Path, items: list[Item]) -> None:
    with pytest.raises(UserError, match=r"class 'a' of clinic has \d images? of 1 patient or lesion: .* need one each"):
        _divided(tmp_path, {"a": items, "b": _images("b", 10)})
    assert not (tmp_path / "split.csv").exists()


@pytest.mark.parametrize("fraction", [0.0, 1.0, -1.0])
def test_a_test_fraction_that_leaves_nothing_is_refused(tmp_path: Path, fraction: float) -> None:
    with pytest.raises(UserError, match="test_fraction is"):
        _divided(tmp_path, {"a": _images("a", 4)}, fraction)


def test_a_file_in_the_place_of_the_runs_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(UserError, match=r"^folder .*/run of the run is a file: give another \(key 'output_dir'\)$"):
        _divided(tmp_path / "run", {"a": _images("a", 4)})


def test_a_broken_list_is_named(tmp_path: Path) -> None:
    (tmp_path / "split.csv").write_text("image,side\na,b\n")
    with pytest.raises(UserError, match="list .*split.csv cannot be read"):
        _divided(tmp_path, {"a": _images("a", 4)})


def test_an_image_with_several_findings_is_on_one_side_and_so_may_be_the_only_one_without_any(tmp_path: Path) -> None:
    both = _images("both", 6)
    classes = {"a": _images("a", 6) + both, "b": _images("b", 6) + both, NO_FINDING: _images("none", 1)}
    group = _divided(tmp_path, classes)
    assert _names(group.train["a"]) & _names(both) == _names(group.train["b"]) & _names(both)
    assert len(group.test["a"]) == len(group.test["b"]) == 4
    sides = [_names([item for items in part.values() for item in items]) for part in (group.train, group.test)]
    assert not sides[0] & sides[1]
    assert sides[0] | sides[1] == _names([item for items in classes.values() for item in items])
