"""What would be trained is counted, and each fault is found where it is and nowhere else."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from scripts.learning.memory import ExemplarMemory
from scripts.learning.planning import Plan, make_plan
from scripts.learning.sources import Item, MedMnist
from scripts.learning.tasks import PlannedTasks, Task, make_tasks

SIDE = 33


@pytest.fixture
def tasks(tiny: Any, tmp_path: Path) -> list[Task]:
    """Two tasks of two classes, 6 training and 3 test images a class, without a fault."""
    made: list[Task] = tiny.tasks(tmp_path / "images")
    return made


def plan_of(tasks: Sequence[Task], **settings: Any) -> Plan:
    values: dict[str, Any] = {"quota": ExemplarMemory(8).quota, "image_size": SIDE, "tiny_class": 1, "imbalance": 5}
    return make_plan(PlannedTasks(tuple(tasks), settings.pop("left_out", {})), **{**values, **settings})


def warned(plan: Plan) -> dict[str, int]:
    return {warning.kind: warning.count for warning in plan.warnings}


def copy(source: Item, target: Item) -> None:
    shutil.copy(source["image"], target["image"])


def without(items: Sequence[Item], label: int, kept: int = 0) -> tuple[Item, ...]:
    """Return the items with only the first ``kept`` of a class."""
    own = [item for item in items if item["label"] == label][:kept]
    return tuple(item for item in items if item["label"] != label or item in own)


def test_classes_images_and_memory_are_counted(tasks: list[Task]) -> None:
    for task, mode, size in ((tasks[0], "L", (40, 50)), (tasks[1], "P", (50, 40))):
        Image.open(task.train[0]["image"]).convert(mode).resize(size).save(task.train[0]["image"])
    plan = plan_of(tasks, quota=ExemplarMemory(9).quota)
    assert [task.name for task in plan.tasks] == ["set0", "set1"]
    assert [(c.name, c.label, c.train, c.validation, c.test) for task in plan.tasks for c in task.classes] == [
        (f"class{label}", label, 6, 2, 3) for label in range(4)
    ]
    assert plan.tasks[0].images == {"33x33 RGB": 21, "40x50 L": 1}
    assert plan.tasks[1].images == {"33x33 RGB": 21, "50x40 P": 1}
    assert [task.memory_per_class for task in plan.tasks] == [4, 2]
    assert plan.readable == {item["image"] for task in tasks for part in task.parts for item in part}
    assert plan.files == {"training": 24, "validation": 8, "test": 12}


def test_a_fixed_number_of_exemplars_a_class_stays(tasks: list[Task]) -> None:
    plan = plan_of(tasks, quota=ExemplarMemory(0, per_class=7).quota)
    assert [task.memory_per_class for task in plan.tasks] == [7, 7]


def test_data_without_a_fault_has_no_warning(tasks: list[Task]) -> None:
    assert warned(plan_of(tasks, tiny_class=6, imbalance=1)) == {}
    assert warned(plan_of(tasks, quota=ExemplarMemory(0).quota)) == {}
    assert warned(plan_of(tasks, quota=ExemplarMemory(4).quota)) == {}


def broken_images(tasks: list[Task]) -> list[Task]:
    for item in (tasks[0].train[2], tasks[1].test[0]):
        Path(item["image"]).write_text("no image")
    return tasks


def trained_test_image(tasks: list[Task]) -> list[Task]:
    copy(tasks[0].train[0], tasks[0].test[1])
    return tasks


def repeated_images(tasks: list[Task]) -> list[Task]:
    for number in (1, 2):
        copy(tasks[1].train[0], tasks[1].train[number])
    return tasks


def two_labels(tasks: list[Task]) -> list[Task]:
    copy(tasks[0].train[0], tasks[1].train[0])
    return tasks


def patient_on_both_sides(tasks: list[Task]) -> list[Task]:
    first, second = tasks
    groups = [{**item, "group": f"patient {number}"} for number, item in enumerate(first.train)]
    return [
        replace(first, train=tuple(groups)),
        replace(second, test=tuple({**item, "group": "patient 3"} for item in second.test)),
    ]


def small_class(tasks: list[Task]) -> list[Task]:
    return [replace(tasks[0], train=without(tasks[0].train, 1, kept=2)), tasks[1]]


def untested_class(tasks: list[Task]) -> list[Task]:
    return [tasks[0], replace(tasks[1], test=without(tasks[1].test, 3))]


def learnt_before(tasks: list[Task]) -> list[Task]:
    return [replace(tasks[0], train=()), tasks[1]]


def learnt_before_and_gone(tasks: list[Task]) -> list[Task]:
    Path(tasks[0].test[0]["image"]).unlink()
    return learnt_before(tasks)


def as_made(tasks: list[Task]) -> list[Task]:
    return tasks


@pytest.mark.parametrize(
    ("fault", "settings", "expected"),
    [
        (broken_images, {}, {"unreadable": 2}),
        (trained_test_image, {}, {"shared": 1}),
        (repeated_images, {}, {"duplicates": 2}),
        (two_labels, {}, {"two_labels": 1, "duplicates": 1}),
        (patient_on_both_sides, {}, {"group_on_both_sides": 1}),
        (small_class, {"tiny_class": 2, "imbalance": 3}, {}),
        (small_class, {"tiny_class": 3, "imbalance": 3}, {"tiny_class": 1}),
        (small_class, {"tiny_class": 2, "imbalance": 2.9}, {"imbalance": 1}),
        (untested_class, {}, {"untested": 1}),
        (learnt_before, {"tiny_class": 6}, {}),
        (learnt_before_and_gone, {}, {"tests_gone": 1}),
        (as_made, {"image_size": SIDE + 1}, {"enlarged": 44}),
        (as_made, {"quota": ExemplarMemory(3).quota}, {"memory": 4}),
    ],
)
def test_a_fault_is_found_and_nothing_else(
    fault: Callable[[list[Task]], list[Task]], settings: dict[str, Any], expected: dict[str, int], tasks: list[Task]
) -> None:
    assert warned(plan_of(fault(tasks), **settings)) == expected


def test_a_warning_names_the_first_case_and_every_image(tasks: list[Task]) -> None:
    (warning,) = plan_of(broken_images(tasks)).warnings
    assert warning.first.startswith(f"image {tasks[0].train[2]['image']} cannot be read")
    assert warning.images == (tasks[0].train[2]["image"], tasks[1].test[0]["image"])


def test_what_is_in_training_and_test_names_both(tasks: list[Task]) -> None:
    (warning,) = plan_of(trained_test_image(tasks)).warnings
    train, test = tasks[0].train[0]["image"], tasks[0].test[1]["image"]
    assert warning.first == f"{test} is the same picture as {train}"
    assert warning.images == (test,)


def test_two_labels_name_both_images_with_their_classes(tasks: list[Task]) -> None:
    warning = plan_of(two_labels(tasks)).warnings[0]
    one, other = tasks[0].train[0]["image"], tasks[1].train[0]["image"]
    assert warning.first == f"{one} is 'class0' (training) and the same picture {other} is 'class2' (training)"
    assert warning.images == (one, other)


def test_a_training_image_that_an_earlier_task_was_tested_with_is_found(tasks: list[Task]) -> None:
    copy(tasks[0].test[0], tasks[1].train[0])
    plan = plan_of(learnt_before(tasks))
    assert warned(plan) == {"two_labels": 1, "shared": 1}
    assert [task.learnt_before for task in plan.tasks] == [True, False]
    assert [(member.train, member.test) for member in plan.tasks[0].classes] == [(0, 3), (0, 3)]


def test_patients_are_counted_and_not_kept(tasks: list[Task]) -> None:
    plan = plan_of(patient_on_both_sides(tasks))
    assert "patient 3" not in repr(plan)
    assert (plan.warnings[0].first, plan.warnings[0].images) == ("", ())


def test_the_real_picture_with_both_labels_is_found(test_data: Path) -> None:
    file = str(test_data / "breastmnist_rebuilt_28.npz")
    plan = plan_of(make_tasks(MedMnist("", file).groups()), image_size=28)
    assert warned(plan) == {"two_labels": 1, "shared": 1}
    assert plan.warnings[0].images == (f"{file}#train/330", f"{file}#test/3")
    assert plan.tasks[0].images == {"28x28 L": 780}


def test_what_is_left_out_is_counted_by_the_reason(tasks: list[Task]) -> None:
    (warning,) = plan_of(tasks, left_out={"files of kinds that are not read": ("a.heic", "b.heic")}).warnings
    assert (warning.kind, warning.count, warning.images) == ("left_out", 2, ("a.heic", "b.heic"))
    assert warning.what == "files of kinds that are not read, left out"
