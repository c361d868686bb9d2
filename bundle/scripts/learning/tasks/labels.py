"""What an image's label is: the number of its class or, where it may carry several findings, what is said of each.

Of findings it is a list over all those known when the image was labelled, one number each: 1, the image has it; 0, it
has not; -1, nobody said, as of the findings of other tasks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from scripts.learning.sources.source import Item
from scripts.utils.errors import UserError

UNKNOWN = -1
"""Of a finding that nobody has looked for."""


def has_findings(items: Iterable[Item]) -> bool:
    """Say whether the images may carry several findings."""
    return any(isinstance(item["label"], list) for item in items)


def numbers_of(item: Item) -> list[int]:
    """Return the number of an image's class, or those of the findings that it is known to have."""
    label = item["label"]
    return [number for number, said in enumerate(label) if said == 1] if isinstance(label, list) else [label]


def shifted(label: int | list[int], places: int) -> int | list[int]:
    """Return a label where there are ``places`` classes more before it, or, below 0, as many fewer."""
    if isinstance(label, list):
        return [UNKNOWN] * places + label[max(0, -places) :]
    return label + places


def widened(items: Sequence[Item], count: int) -> list[Item]:
    """Return items whose labels say something of ``count`` findings, so that they fit into one batch.

    A class number stays.
    """
    return [
        {**item, "label": [*item["label"], *[UNKNOWN] * count][:count]} if isinstance(item["label"], list) else item
        for item in items
    ]


def findings_of(items: Sequence[Item], count: int) -> Tensor:
    """Return what is said of the first ``count`` findings of each image, [N, count]: 1, 0, or -1."""
    return torch.tensor([item["label"] for item in widened(items, count)])


def require_one_class(items: Iterable[Item], what: str) -> None:
    """Refuse images that may carry several findings.

    Args:
        items: some of the images.
        what: takes one class an image, for people.

    Raises:
        UserError: says so.
    """
    if has_findings(items):
        raise UserError(f"{what} takes one class an image, and these images carry several findings: leave it out")
