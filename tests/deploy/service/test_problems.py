"""What is refused says why twice: in a line of English, and as a code that the page has words for."""

from __future__ import annotations

import pytest

from scripts.deploy.service.images import require_class_name
from scripts.deploy.service.problems import Problem, answer_to, unknown
from scripts.imaging.decoding.reasons import Reason, refused
from scripts.utils.errors import UserError


def test_a_problem_carries_the_values_that_its_words_name() -> None:
    with pytest.raises(Problem) as problem:
        require_class_name("4 rings")
    status, content = answer_to(problem.value)
    assert (status, content["reason"], content["values"]) == (422, "class_name", {"n": 64})
    assert content["detail"].startswith("a class is called by up to 64 letters")


def test_what_only_programs_meet_has_no_code() -> None:
    assert answer_to(Problem(422, "params must be a JSON object")) == (422, {"detail": "params must be a JSON object"})
    assert answer_to(unknown("image"))[1]["reason"] == "unknown"


def test_of_an_image_the_reason_is_the_decoders_and_its_name_is_not_said() -> None:
    status, content = answer_to(refused("/data/Jane.dcm", Reason.CORRUPT_PIXELS))
    assert (status, content["reason"]) == (400, "corrupt_pixels") and "Jane" not in content["detail"]
    assert answer_to(UserError("the disk is full")) == (503, {"detail": "the disk is full"})
