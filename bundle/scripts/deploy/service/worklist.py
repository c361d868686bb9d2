"""The images in the order in which a person should look at them, and the classes that were given so far."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from scripts.deploy.service.images import Listed
from scripts.model.decisions.results import Doubt, Result

FEWEST = 2
"""Patients that a class needs, to learn from and to test."""
ALIKE = 0.75
"""Share of two names' letters that are the same, from which on they may be meant for one another."""


class Order(StrEnum):
    """What comes first."""

    DOUBT = "doubt"
    NEWEST = "newest"
    OLDEST = "oldest"


class Shown(StrEnum):
    """Which images."""

    ALL = "all"
    WAITING = "waiting"
    LABELLED = "labelled"


@dataclass(frozen=True)
class Wanted:
    """Which images are listed, and how.

    Attributes:
        order: what comes first.
        shown: which images.
        label: the class that a person has given; ``None``: any or none.
        search: what stands in an image's name, its class, the class predicted or the name of who labelled it.
    """

    order: Order
    shown: Shown
    label: str | None
    search: str


def doubt_of(result: Result) -> float:
    """Return how much the model doubts, 0..1: 1 - (p1 - p2), and 1 of what is unlike all that it was shown."""
    if result.doubt is Doubt.OUTLIER:
        return 1.0
    return 1 - result.lead


def listed(images: Iterable[Listed], said: Mapping[str, Result], wanted: Wanted) -> list[tuple[Listed, float | None]]:
    """Return the images that are wanted, in order, with the doubt of each that the model was asked about.

    Args:
        images: all.
        said: by the model, of some.
        wanted: which, and in which order. Of equal ones that with the lesser name comes first.
    """
    kept = [(one, doubt_of(said[one.image]) if one.image in said else None) for one in images if _is(one, said, wanted)]
    if wanted.order is Order.DOUBT:
        return sorted(kept, key=lambda pair: (-1.0 if pair[1] is None else pair[1], pair[0].image), reverse=True)
    times = [(one.time or one.added, one, doubt) for one, doubt in kept]
    times.sort(key=lambda entry: (entry[0], entry[1].image), reverse=wanted.order is Order.NEWEST)
    return [(one, doubt) for _, one, doubt in times]


def _is(one: Listed, said: Mapping[str, Result], wanted: Wanted) -> bool:
    if wanted.shown is not Shown.ALL and (one.label is None) is not (wanted.shown is Shown.WAITING):
        return False
    if wanted.label is not None and one.label != wanted.label:
        return False
    if not wanted.search:
        return True
    predicted = said[one.image].predicted_class if one.image in said else None
    texts = filter(None, (one.image, one.label, predicted, one.by))
    return any(wanted.search.casefold() in text.casefold() for text in texts)


def classes_given(images: Iterable[Listed], known: Sequence[str]) -> list[dict[str, Any]]:
    """Return the classes of the labels: how many images, of how many patients, who gave them, when.

    Args:
        images: all.
        known: the classes of the served version.
    """
    own: dict[str, list[Listed]] = {}
    for one in images:
        if one.label is not None:
            own.setdefault(one.label, []).append(one)
    return [
        {
            "label": label,
            "known": label in known,
            "images": len(members),
            "patients": len(groups := {one.group for one in members}),
            "missing": 0 if label in known else max(0, FEWEST - len(groups)),
            "by": dict(Counter(one.by for one in members if one.by).most_common()),
            "first": min(one.time or 0 for one in members),
            "last": max(one.time or 0 for one in members),
        }
        for label, members in sorted(own.items())
    ]


def near(name: str, names: Sequence[str]) -> list[str]:
    """Return the names, other than itself, that a name may be a slip of the pen for, the likeliest first."""
    folded = {other: other.casefold() for other in names if other != name}
    found = difflib.get_close_matches(name.casefold(), [*dict.fromkeys(folded.values())], 3, ALIKE)
    return [other for match in found for other, own in folded.items() if own == match]
