"""The list leads with what the model doubts; names that are nearly the same are noticed."""

from __future__ import annotations

import numpy as np
import pytest

from scripts.deploy.service.images import Listed
from scripts.deploy.service.worklist import Order, Shown, Wanted, classes_given, doubt_of, listed, near
from scripts.model.decisions.results import Doubt, ModelIdentity, Result

MODEL = ModelIdentity("m", "1", "0" * 64, ("a", "b", "c"))


def said(*probabilities: float, doubt: Doubt | None = None) -> Result:
    shares = dict(zip(MODEL.classes, probabilities, strict=True))
    return Result(MODEL, max(shares, key=shares.__getitem__), shares, doubt)


IMAGES = [
    Listed("1", 10, "p1"),
    Listed("2", 20, "p2"),
    Listed("3", 30, "p3"),
    Listed("4", 40, "p4"),
    Listed("5", 5, "p1", "ring", "Zoe", 50),
    Listed("6", 6, "p1", "ring", "Max", 45),
    Listed("7", 7, "p9", "a", "Zoe", 44),
]
SAID = {"1": said(0.9, 0.1, 0), "2": said(0.4, 0.35, 0.25), "3": said(1, 0, 0, doubt=Doubt.OUTLIER)}


def names(order: Order, shown: Shown, label: str | None = None, search: str = "") -> str:
    return "".join(one.image for one, _ in listed(IMAGES, SAID, Wanted(order, shown, label, search)))


def test_what_is_unlike_all_comes_first_then_the_closest_two_and_last_what_nobody_asked_about() -> None:
    assert names(Order.DOUBT, Shown.WAITING) == "3214"
    assert [doubt_of(SAID[image]) for image in "123"] == pytest.approx([0.2, 0.95, 1])


def test_times_are_of_the_label_where_there_is_one() -> None:
    assert names(Order.NEWEST, Shown.ALL) == "5674321"
    assert names(Order.OLDEST, Shown.ALL) == "1234765"


@pytest.mark.parametrize(
    ("shown", "label", "search", "expected"),
    [
        (Shown.LABELLED, None, "", "765"),
        (Shown.ALL, "ring", "", "65"),
        (Shown.ALL, None, "zOE", "75"),
        (Shown.ALL, None, "RIN", "65"),
        (Shown.WAITING, None, "b", ""),
        (Shown.WAITING, None, "a", "123"),
        (Shown.ALL, None, "4", "4"),
    ],
)
def test_images_are_found(shown: Shown, label: str | None, search: str, expected: str) -> None:
    assert names(Order.OLDEST, shown, label, search) == expected


def test_a_page_of_the_list_is_a_part_of_the_whole_whatever_its_size() -> None:
    rng = np.random.default_rng(0)
    images = [Listed(f"{number:032x}", int(rng.integers(9)), "p") for number in range(200)]
    told = {one.image: said(*rng.dirichlet([1, 1, 1])) for one in images[::2]}
    wanted = Wanted(Order.DOUBT, Shown.ALL, None, "")
    order = [one.image for one, _ in listed(images, told, wanted)]
    assert order == [one.image for one, _ in listed(images[::-1], told, wanted)], "of equal ones it is always the same"
    assert sorted(order) == [one.image for one in images]


def test_classes_are_counted_with_who_gave_them() -> None:
    known, ring = classes_given(IMAGES, MODEL.classes)
    assert (known["label"], known["known"], known["missing"]) == ("a", True, 0)
    assert (ring["images"], ring["patients"], ring["missing"], ring["by"]) == (2, 1, 1, {"Zoe": 1, "Max": 1})
    assert (ring["first"], ring["last"]) == (45, 50)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("Naevus", ["naevus"]),
        ("melanom", ["melanoma"]),
        ("melanoma", []),
        ("rings", []),
        ("nevus", ["naevus"]),
        ("something else", []),
    ],
)
def test_a_slip_of_the_pen_is_noticed(name: str, found: list[str]) -> None:
    assert near(name, ["melanoma", "naevus", "cyst"]) == found
