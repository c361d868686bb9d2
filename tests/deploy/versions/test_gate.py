"""A gate lets a version pass of which every class is shown to be kept, and says of each other one why not."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom, multinomial

from scripts.commands.versions import usual_gate
from scripts.deploy.versions.gate import LEVEL, Gate, NewClass, OldClass, mean_bound
from scripts.utils.errors import UserError

EIGHT = {f"class {number}": OldClass(51, 0, 0) for number in range(8)}


def gate(**asked: float) -> Gate:
    """Return a gate as usual, but for what is asked."""
    return Gate(**{**usual_gate(), **asked})


def reasons(old: dict[str, OldClass], new: dict[str, NewClass] | None = None, **asked: Any) -> list[str]:
    return [objection.reason for objection in gate(**asked).objections(old, new or {}, [0.9])]


def test_a_class_that_lost_is_not_made_up_for_by_one_that_gained() -> None:
    old = {"melanoma": OldClass(100, 30, 0), "naevus": OldClass(100, 0, 30)}
    (objection,) = gate(mean_margin=1.0).objections(old, {}, [0.9])
    assert objection.decided
    assert objection.reason.startswith("melanoma: it may have lost 40.4 points")
    assert "(30.0 on its 100 test images), more than 10.0" in objection.reason


def test_eight_classes_of_51_images_without_a_loss_pass_and_of_50_do_not() -> None:
    assert reasons(EIGHT) == []
    (objection,) = gate().objections({**EIGHT, "class 3": OldClass(50, 0, 0)}, {}, [0.9])
    assert objection.reason.endswith("; 51 such images would decide")
    assert not objection.decided


def test_what_few_images_cannot_show_does_not_pass_and_says_how_many_could() -> None:
    (objection,) = gate(mean_margin=1.0).objections({"rare": OldClass(12, 0, 0)}, {}, [0.9])
    assert (objection.decided, objection.reason.split("; ")[1]) == (False, "31 such images would decide")
    assert reasons({"rare": OldClass(31, 0, 0)}) == []
    (none,) = gate().objections({"gone": OldClass(0, 0, 0)}, {}, [0.9])
    assert "100.0 points of recall (0.0 on its 0 test images)" in none.reason


@pytest.mark.parametrize(("lost", "gained"), [(0.1, 0.0), (0.15, 0.05), (0.3, 0.2)])
def test_no_class_at_the_margin_passes_more_often_than_the_level_says(lost: float, gained: float) -> None:
    images, level = 60, LEVEL / 4
    counts = [(b, g) for b, g in product(range(images + 1), repeat=2) if b + g <= images]
    chances = multinomial(images, [lost, gained, 1 - lost - gained]).pmf([(b, g, images - b - g) for b, g in counts])
    possible = [(count, chance) for count, chance in zip(counts, chances, strict=True) if chance > 1e-7]
    passed = sum(chance for (b, g), chance in possible if OldClass(images, b, g).bound(level) <= lost - gained)
    assert passed <= level


def test_the_bound_of_a_recall_is_the_exact_one() -> None:
    bound = NewClass(20, 9).bound(0.01)
    assert binom.sf(8, 20, bound) == pytest.approx(0.01, rel=1e-4)


def test_new_classes_and_those_of_a_first_version_reach_a_floor() -> None:
    new = {"fine": NewClass(20, 12), "few": NewClass(1, 1), "bad": NewClass(40, 3)}
    few, bad = gate().objections({}, new, [0.9])
    assert few.reason.startswith(
        "few: its recall may be 1.7 % (100.0 % of its 1 test images), under the floor of 10.0 %"
    )
    assert (few.decided, bad.decided) == (False, True)
    (mean,) = gate(class_floor=0).objections({}, new, [0.175, 0.175])
    assert mean.reason == "mean: its recall is 17.5 %, under the floor of 50.0 %"
    assert "mean: its recall is 0.0 %" in gate().objections({}, {}, [])[0].reason


def test_the_mean_is_kept_too() -> None:
    old = {name: OldClass(1000, 45, 0) for name in ("a", "b")}
    (mean,) = reasons(old)
    assert mean.startswith("mean: it may have lost 5.3 points of recall (4.5 on 2000 test images), more than 2.0")
    assert reasons(old, mean_margin=0.06) == []


def test_the_mean_is_bounded_by_resampling_images_within_each_class() -> None:
    classes = [OldClass(40, 8, 2), OldClass(20, 1, 3)]
    generator = np.random.default_rng(1)
    drawn = [generator.multinomial(own.images, shares(own), 20_000) / own.images for own in classes]
    means = np.mean([shares[:, 0] - shares[:, 1] for shares in drawn], 0)
    assert mean_bound(classes) == pytest.approx(np.quantile(means, 0.95), abs=0.013)
    assert mean_bound([OldClass(1, 1, 0)]) == 1


def shares(own: OldClass) -> list[float]:
    """Return the shares that were lost, gained and kept as they were."""
    return [own.lost / own.images, own.gained / own.images, 1 - (own.lost + own.gained) / own.images]


@pytest.mark.parametrize(
    ("name", "value"), [("class_margin", -0.1), ("mean_margin", 2), ("class_floor", float("nan")), ("mean_floor", 7)]
)
def test_a_number_that_means_nothing_is_refused(name: str, value: float) -> None:
    with pytest.raises(UserError, match=f"{name} is"):
        gate(**{name: value})
