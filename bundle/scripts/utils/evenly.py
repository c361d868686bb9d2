"""Some of many, at even distances."""

from __future__ import annotations


def even_places(total: int, most: int) -> list[int]:
    """Return at most ``most`` of the positions 0 to ``total`` - 1, at even distances from the first one on."""
    count = min(most, total)
    return [number * total // count for number in range(count)]
