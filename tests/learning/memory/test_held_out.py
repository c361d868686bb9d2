"""A balanced part of the images is held out, the same at every call."""

from __future__ import annotations

from collections import Counter

import pytest

from scripts.learning.memory import divide
from scripts.learning.sources import Item
from scripts.utils.errors import UserError


def items(*counts: int) -> list[Item]:
    return [{"image": f"{label}-{n}", "label": label} for label, count in enumerate(counts) for n in range(count)]


@pytest.mark.parametrize(
    ("counts", "quota", "held"),
    [((20, 20, 90, 70), 20, 2), ((2, 2, 9), 2, 1), ((5, 30), 5, 1), ((30, 2), 40, 1), ((100, 300), 100, 10)],
)
def test_a_tenth_of_the_quota_is_held_out_of_every_class(counts: tuple[int, ...], quota: int, held: int) -> None:
    given = items(*counts)
    rest, out = divide(given, quota)
    assert Counter(item["label"] for item in out) == dict.fromkeys(range(len(counts)), held)
    assert sorted(item["image"] for item in rest + out) == sorted(item["image"] for item in given)
    assert rest == [item for item in given if item in rest], "their order stays"
    assert divide(given, quota) == (rest, out)


def test_a_single_image_cannot_be_divided() -> None:
    with pytest.raises(UserError, match="a class has a single image left"):
        divide(items(4, 1), 4)
