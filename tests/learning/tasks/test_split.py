"""The class-incremental split: labels, sizes, names, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from scripts.learning.sources import Group, Item
from scripts.learning.sources.source import NO_FINDING
from scripts.learning.tasks import Task, make_tasks
from scripts.utils.errors import UserError


def drawers(**groups: dict[str, int]) -> list[Group]:
    """Return groups with the given numbers of training images by class."""
    return [
        Group(
            name,
            tuple(counts),
            {member: _items(f"{member}-train", count) for member, count in counts.items()},
            {member: _items(f"{member}-test", 2) for member in counts},
        )
        for name, counts in groups.items()
    ]


def _items(name: str, count: int) -> list[Item]:
    return [{"image": f"{name}{number}.png"} for number in range(count)]


FIVE = drawers(blood={"a": 4, "b": 5, "c": 6}, skin={"d": 7, "e": 8})


def _classes(tasks: list[Task]) -> list[tuple[str, ...]]:
    return [task.classes for task in tasks]


@pytest.mark.parametrize(
    ("split", "classes"),
    [
        (None, [("a", "b", "c"), ("d", "e")]),
        (1, [("a",), ("b",), ("c",), ("d",), ("e",)]),
        (5, [("a", "b", "c", "d", "e")]),
        ([2, 3], [("a", "b"), ("c", "d", "e")]),
        ([["e", "a"], ["c"]], [("e", "a"), ("c",)]),
    ],
)
def test_split_says_which_classes_are_learnt_when(split: Any, classes: list[tuple[str, ...]]) -> None:
    assert _classes(make_tasks(FIVE, split)) == classes


def test_seed_1993_gives_the_order_of_the_published_results() -> None:
    hundred = drawers(cifar100={str(number): 1 for number in range(100)})
    first = make_tasks(hundred, 10, order=1993)[0]
    assert first.classes == ("68", "56", "78", "8", "23", "84", "90", "65", "74", "76")


def test_order_is_of_the_classes_or_where_each_is_a_task_of_the_data_sets() -> None:
    assert _classes(make_tasks(FIVE, [2, 3], order=["e", "a", "d", "b", "c"])) == [("e", "a"), ("d", "b", "c")]
    assert _classes(make_tasks(FIVE, order=["skin", "blood"])) == [("d", "e"), ("a", "b", "c")]
    many = drawers(**{f"set{number}": {f"class{number}": 1} for number in range(20)})
    shuffled = [task.name for task in make_tasks(many, order=7)]
    assert shuffled == [task.name for task in make_tasks(many, order=7)]
    assert shuffled != [f"set{number}" for number in range(20)]
    assert sorted(shuffled) == sorted(f"set{number}" for number in range(20))


@pytest.mark.parametrize(
    ("split", "order", "message"),
    [
        (
            1,
            ["a", "b"],
            "planned_tasks#order is \\['a', 'b'\\], but what is to be ordered is a, b, c, d, e: name each once",
        ),
        (1, "abcde", "planned_tasks#order is 'abcde'"),
        (None, ["a", "b", "c", "d", "e"], "what is to be ordered is blood, skin"),
        ([["a"], ["b"]], 1993, "planned_tasks#order is given, but split names the classes"),
    ],
)
def test_an_order_that_does_not_fit_is_refused(split: Any, order: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_tasks(FIVE, split, order=order)


@pytest.mark.parametrize("split", [None, 1, [2, 3], [["e", "a"], ["c"]]])
def test_labels_are_counted_over_all_tasks(split: Any) -> None:
    tasks = make_tasks(FIVE, split)
    order = [name for task in tasks for name in task.classes]
    assert [task.first for task in tasks] == [order.index(task.classes[0]) for task in tasks]
    for task in tasks:
        for item in (*task.train, *task.test):
            assert order[item["label"]] == item["image"].split("-")[0]
            assert order[item["label"]] in task.classes


def test_every_image_of_the_chosen_classes_is_used_once() -> None:
    images = [item["image"] for task in make_tasks(FIVE, [2, 3]) for item in task.train]
    assert len(images) == len(set(images)) == 4 + 5 + 6 + 7 + 8


def test_groups_name_their_tasks_and_classes_the_others() -> None:
    assert [task.name for task in make_tasks(FIVE)] == ["blood", "skin"]
    assert [task.name for task in make_tasks(FIVE, [1, 4])] == ["a", "b+3"]


def test_labels_go_on_after_the_previous_tasks_which_stay_as_they_are() -> None:
    previous = make_tasks(drawers(old={"x": 1, "y": 2, "z": 3}), [2, 1])
    tasks = make_tasks(FIVE, previous=previous)
    assert tasks[:2] == previous
    assert [task.first for task in tasks] == [0, 2, 3, 6]
    assert {item["label"] for item in tasks[3].train} == {6, 7}


@pytest.mark.parametrize("limit", [1, 3, 5])
def test_limit_takes_images_at_even_distances(limit: int) -> None:
    (task,) = make_tasks(drawers(one={"a": 10, "b": 2}), limit=limit)
    chosen = [int(item["image"][7:-4]) for item in task.train if item["label"] == 0]
    assert chosen == {1: [0], 3: [0, 3, 6], 5: [0, 2, 4, 6, 8]}[limit]
    assert sum(item["label"] == 1 for item in task.train) == min(limit, 2)
    assert len(task.test) == 4


def test_a_class_that_an_earlier_task_has_learnt_is_refused() -> None:
    previous = make_tasks(drawers(old={"x": 1, "d": 2}))
    with pytest.raises(UserError, match="class 'd' is in two tasks, 'old' and 'skin'"):
        make_tasks(FIVE, previous=previous)


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ([["a", "b"], ["b"]], "class 'b' is in two tasks, 'a\\+b' and 'b'"),
        ([["a", "a"]], "class 'a' is in two tasks"),
        ([["a"], ["nevus"]], "unknown class 'nevus': the data has a, b, c, d, e"),
        (2, "5 classes cannot be divided into tasks of 2"),
        (0, "cannot be divided into tasks of 0"),
        ([2, 2], "makes 4 classes, but the data has 5"),
        ([6, -1], "sizes of at least 1"),
        ([], "split is \\[\\]: give null"),
        (["a", "b"], "split is \\['a', 'b'\\]: give null"),
        ([["a"], 2], "give null"),
    ],
)
def test_a_split_that_does_not_fit_is_refused(split: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_tasks(FIVE, split)


def test_two_groups_with_the_same_class_are_refused() -> None:
    with pytest.raises(UserError, match="class 'normal' is in two tasks, 'chest' and 'breast'"):
        make_tasks(drawers(chest={"normal": 1}, breast={"normal": 1}))


def test_a_class_without_training_images_is_refused_only_where_it_is_learnt() -> None:
    source = drawers(one={"a": 3, "b": 0})
    with pytest.raises(UserError, match="class 'b' of one has no training images"):
        make_tasks(source)
    assert _classes(make_tasks(source, [["a"]])) == [("a",)]


def test_a_limit_below_one_is_refused() -> None:
    with pytest.raises(UserError, match="limit is 0"):
        make_tasks(FIVE, limit=0)


def test_classes_of_two_data_sets_or_of_earlier_tasks_may_not_look_alike() -> None:
    with pytest.raises(UserError, match="classes 'NV' and 'nv' of the tasks differ in blanks, case or Unicode form"):
        make_tasks(drawers(one={"NV": 2}, two={"nv": 2}))
    earlier = make_tasks(drawers(one={"NV": 2}))
    with pytest.raises(UserError, match="classes 'NV' and 'n v' of the tasks"):
        make_tasks(drawers(two={"n v": 2}), previous=earlier)


def findings(**images: str) -> Group:
    """Return a group of images, each with the findings that its text names a letter each."""
    listed: dict[str, list[Item]] = {}
    for image, names in images.items():
        for name in names or [NO_FINDING]:
            listed.setdefault(name, []).append({"image": image})
    return Group("chest", ("a", "b", "c"), listed, listed, several=True)


def _labels(items: tuple[Item, ...]) -> dict[str, list[int]]:
    return {item["image"]: item["label"] for item in items}


CHEST = findings(one="a", two="ab", three="ac", four="c", five="")


def test_an_image_with_several_findings_is_learnt_once_with_what_is_said_of_each() -> None:
    (task,) = make_tasks([CHEST])
    said = {"one": [1, 0, 0], "two": [1, 1, 0], "three": [1, 0, 1], "four": [0, 0, 1], "five": [0, 0, 0]}
    assert _labels(task.train) == _labels(task.test) == said
    assert task.has_findings


def test_of_findings_of_other_tasks_nobody_has_said_anything() -> None:
    first, second = make_tasks([CHEST], [["a", "b"], ["c"]])
    assert _labels(first.train) == {"one": [1, 0], "two": [1, 1], "three": [1, 0], "five": [0, 0]}
    assert _labels(second.train) == {"three": [-1, -1, 1], "four": [-1, -1, 1], "five": [-1, -1, 0]}


def test_a_limit_leaves_images_out_and_their_labels_true() -> None:
    (task,) = make_tasks([CHEST], limit=1)
    assert _labels(task.train) == {"one": [1, 0, 0], "two": [1, 1, 0], "three": [1, 0, 1], "five": [0, 0, 0]}


def test_a_finding_in_two_tasks_and_one_class_beside_several_are_refused() -> None:
    with pytest.raises(UserError, match="class 'a' is in two tasks, 'a' and 'a\\+b'"):
        make_tasks([CHEST], [["a"], ["a", "b"]])
    with pytest.raises(UserError, match="every training image of chest has 'a': add some without it"):
        make_tasks([findings(one="ab", two="ac")])
    with pytest.raises(UserError, match="those of others several findings.*source#labels"):
        make_tasks([CHEST, *FIVE])
    with pytest.raises(UserError, match="those of others several findings.*source#labels"):
        make_tasks([CHEST], previous=make_tasks(drawers(skin={"d": 7, "e": 8})))
