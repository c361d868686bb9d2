"""Few, uneven and wrongly labelled training images: as many as asked for, test images untouched, by seed."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from scripts.learning.tasks import Task
from scripts.learning.tasks.spoilt import mislabelled, uneven
from scripts.utils.errors import UserError


def make(sizes: tuple[int, ...], count: int = 200) -> list[Task]:
    tasks: list[Task] = []
    for number, size in enumerate(sizes):
        first = sum(sizes[:number])
        labels = range(first, first + size)
        train = tuple({"image": f"{label}/{index}", "label": label} for label in labels for index in range(count))
        test = tuple({"image": f"{label}/test", "label": label} for label in labels)
        tasks.append(Task(f"t{number}", tuple(map(str, labels)), first, train, test))
    return tasks


def counts(tasks: list[Task]) -> list[int]:
    found: Counter[Any] = Counter(item["label"] for task in tasks for item in task.train)
    return [found[label] for label in sorted(found)]


def true_labels(task: Task) -> list[int]:
    return [int(item["image"].split("/")[0]) for item in task.train]


def test_classes_get_fewer_and_fewer_down_to_a_hundredth() -> None:
    tasks = make((2, 2, 1))
    kept = uneven(tasks, 100)
    assert counts(kept) == [200, 63, 20, 6, 2]  # 200 / 100^(k / 4)
    assert [task.test for task in kept] == [task.test for task in tasks]
    assert uneven(tasks, 1) == tasks
    assert counts(uneven(make((2, 2), count=1), 100)) == [1, 1, 1, 1]


def test_a_share_of_each_class_is_labelled_as_another_of_its_task() -> None:
    tasks = make((2, 3, 1))
    spoilt = mislabelled(tasks, 0.1, seed=3)
    for task in spoilt:
        wrong = [
            (true, item["label"])
            for true, item in zip(true_labels(task), task.train, strict=True)
            if item["label"] != true
        ]
        assert {label - task.first for _, label in wrong} <= set(range(len(task.classes)))
        assert sorted(Counter(true for true, _ in wrong).values()) == [20] * (
            len(task.classes) * (len(task.classes) > 1)
        )
    assert [task.test for task in spoilt] == [task.test for task in tasks]
    assert mislabelled(tasks, 0.1, seed=3) == spoilt != mislabelled(tasks, 0.1, seed=4)
    assert mislabelled(tasks, 0, seed=3) == tasks


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UserError, match="imbalance is 0.5"):
        uneven(make((2,)), 0.5)
    with pytest.raises(UserError, match="wrong_labels is 1"):
        mislabelled(make((2,)), 1, seed=0)
