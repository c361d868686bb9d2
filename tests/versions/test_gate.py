"""A gate lets a version pass that has kept the old classes, and stops one that may have lost them."""

from __future__ import annotations

import numpy as np
import pytest

from scripts.errors import UserError
from scripts.versions.gate import Answers, Gate, forgotten, recall


def answers(right: int, wrong: int, label: str = "old", start: int = 0) -> Answers:
    """``right`` images that are recognised, then ``wrong`` ones that are not."""
    predicted = [label] * right + ["other"] * wrong
    return {f"{label}{start + number}": (label, guess) for number, guess in enumerate(predicted)}


def test_a_version_that_says_the_same_passes_and_one_that_lost_ten_points_does_not() -> None:
    before = answers(90, 10)
    assert Gate().objections(before, before) == []
    (objection,) = Gate().objections(answers(80, 20), before)
    assert "may have lost 10.0 points of recall on 100 images" in objection
    assert "at most 2.0 are allowed" in objection


def test_what_few_images_cannot_show_is_not_let_pass() -> None:
    # one of ten lost and one gained: no loss is seen, but one of twenty points could be there
    before = answers(8, 2)
    after = {**before, "old0": ("old", "other"), "old9": ("old", "old")}
    loss = forgotten(after, before)
    assert loss is not None
    assert loss.estimate == 0
    assert loss.high > 0.1
    assert len(Gate().objections(after, before)) == 1
    assert Gate(margin=0.5).objections(after, before) == []


def test_new_classes_do_not_weigh_and_every_old_class_weighs_the_same() -> None:
    before = {**answers(100, 0, "large"), **answers(4, 0, "small")}
    after = {**answers(100, 0, "large"), **answers(2, 2, "small"), **answers(0, 50, "new")}
    loss = forgotten(after, before)
    assert loss is not None
    assert (loss.estimate, loss.images) == (0.25, 104)


def test_the_interval_is_that_of_resampling_images_within_each_class() -> None:
    before = {**answers(30, 10, "a"), **answers(15, 5, "b")}
    after = {**answers(24, 16, "a"), **answers(17, 3, "b")}
    generator = np.random.default_rng(1)
    differences = [
        np.array([(before[key][1] == name) * 1.0 - (after[key][1] == name) for key in before if key[0] == name])
        for name in "ab"
    ]
    drawn = [np.mean([generator.choice(values, len(values)).mean() for values in differences]) for _ in range(20_000)]
    loss = forgotten(after, before)
    assert loss is not None
    assert (loss.low, loss.high) == pytest.approx(tuple(np.quantile(drawn, (0.025, 0.975))), abs=0.013)


def test_without_a_common_image_nothing_passes_but_the_first_version_does() -> None:
    assert "no test image of the old classes is left" in Gate().objections(answers(5, 0, start=100), answers(5, 0))[0]
    assert Gate().objections(answers(0, 5), None) == []


def test_a_floor_is_asked_of_every_version() -> None:
    (objection,) = Gate(floor=0.9).objections(answers(8, 2), None)
    assert "mean class recall is 80.0 %, under the floor of 90.0 %" in objection
    assert Gate(floor=0.8).objections(answers(8, 2), None) == []
    assert recall({}) == 0


def test_an_image_alone_in_its_class_is_compared() -> None:
    loss = forgotten(answers(0, 1), answers(1, 0))
    assert loss is not None
    assert (loss.low, loss.estimate, loss.high) == (1, 1, 1)


@pytest.mark.parametrize(("name", "value"), [("margin", -0.1), ("margin", 2), ("floor", float("nan"))])
def test_a_number_that_means_nothing_is_refused(name: str, value: float) -> None:
    with pytest.raises(UserError, match=f"{name} is"):
        Gate(**{name: value})
