"""A label is a class number or what is said of each finding: whoever counts, batches or shifts it asks one place."""

from __future__ import annotations

import pytest

from scripts.learning.tasks.labels import findings_of, numbers_of, require_one_class, shifted, widened
from scripts.utils.errors import UserError

CLASS, FINDINGS, NONE = {"label": 3}, {"label": [-1, 1, 0, 1]}, {"label": [0, 0]}


def test_an_image_counts_for_its_class_or_for_each_finding_that_it_has() -> None:
    assert [numbers_of(item) for item in (CLASS, FINDINGS, NONE)] == [[3], [1, 3], []]


def test_labels_of_several_tasks_are_made_one_width() -> None:
    assert [item["label"] for item in widened([CLASS, FINDINGS, NONE], 3)] == [3, [-1, 1, 0], [0, 0, -1]]
    assert findings_of([FINDINGS, NONE], 5).tolist() == [[-1, 1, 0, 1, -1], [0, 0, -1, -1, -1]]


@pytest.mark.parametrize(("places", "expected"), [(1, [-1, -1, 1]), (0, [-1, 1]), (-1, [1])])
def test_a_label_follows_classes_put_before_it(places: int, expected: list[int]) -> None:
    assert shifted([-1, 1], places) == expected
    assert shifted(4, places) == 4 + places


def test_what_takes_one_class_refuses_findings() -> None:
    require_one_class([CLASS], "search")
    with pytest.raises(UserError, match="search takes one class an image"):
        require_one_class([FINDINGS], "search")
