"""Positions at even distances."""

from __future__ import annotations

import pytest

from scripts.utils.evenly import even_places


@pytest.mark.parametrize(
    ("total", "most", "places"),
    [(10, 3, [0, 3, 6]), (3, 10, [0, 1, 2]), (5, 0, []), (0, 5, []), (7, 7, [0, 1, 2, 3, 4, 5, 6])],
)
def test_places_are_spread_from_the_first_one_on(total: int, most: int, places: list[int]) -> None:
    assert even_places(total, most) == places
