"""Counts and times as people say them."""

from __future__ import annotations

import pytest

from scripts.utils.words import counted, duration


def test_one_is_no_plural() -> None:
    assert [counted(number, "image") for number in (0, 1, 3360)] == ["0 images", "1 image", "3,360 images"]
    assert [counted(number, "class", "classes") for number in (1, 2)] == ["1 class", "2 classes"]


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (59, "59 s"), (61, "1 min"), (3599, "1 h 0 min"), (7830, "2 h 10 min")]
)
def test_a_time_has_the_unit_that_fits(seconds: float, said: str) -> None:
    assert duration(seconds) == said
