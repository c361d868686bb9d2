"""Images held out of training: the same number of every class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scripts.learning.sources.source import Item
from scripts.utils.errors import UserError

SHARE = 0.1  # of the exemplars of a class


def divide(items: Sequence[Item], quota: int) -> tuple[list[Item], list[Item]]:
    """Divide images into those to train on and a balanced held-out part, the same at every call.

    Of each class a tenth of ``quota`` is held out, one image at least, and one image at least is left.
    Source: Wu et al., BiC (CVPR 2019), section 4.2.

    Args:
        items: images of old and new classes.
        quota: exemplars that each old class keeps.

    Raises:
        UserError: when a class has a single image.
    """
    by_class: dict[int, list[int]] = {}
    for position, item in enumerate(items):
        by_class.setdefault(item["label"], []).append(position)
    fewest = min(map(len, by_class.values()))
    if fewest < 2:
        raise UserError("a class has a single image left, but one is trained on and one held out: raise 'memory_size'")
    count = min(max(1, round(SHARE * quota)), fewest - 1)
    held: set[int] = set()
    for label, positions in by_class.items():
        held.update(np.random.default_rng(label).permutation(positions)[:count].tolist())
    return (
        [item for position, item in enumerate(items) if position not in held],
        [items[position] for position in sorted(held)],
    )
