"""Work that goes on after the answer: one at a time, and it says how it ended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from threading import Event
from typing import Any

import pytest

from scripts.deploy.service.background import DONE, ERROR, RUNNING, STOPPED, Background
from scripts.deploy.service.problems import Problem
from scripts.imaging.decoding.reasons import ImageRefused

SECRET = "Doe^Jane"


@pytest.fixture
def background() -> Iterator[Background]:
    made = Background("scoring")
    yield made
    made.close()


def ended(background: Background) -> dict[str, Any]:
    """Wait for the end, and return how it stands."""
    background._pool.submit(lambda: None).result()  # comes after the work
    return background.status()


def test_what_comes_of_it_is_kept(background: Background) -> None:
    started = background.start({"method": "m"}, lambda stop: {"accuracy": 1.0})
    assert (started["status"], started["request"]) == (RUNNING, {"method": "m"})
    found = ended(background)
    assert (found["id"], found["status"], found["result"]) == (started["id"], DONE, {"accuracy": 1.0})
    assert found["start_ts"] <= found["end_ts"]
    with pytest.raises(Problem) as none:
        background.status(check_if_running=True)
    assert none.value.status == 404


def test_a_second_one_waits_for_the_first_which_can_be_stopped(background: Background) -> None:
    reached = Event()

    def work(stop: Event) -> Mapping[str, Any]:
        reached.set()
        stop.wait()
        return {"done": 1}

    background.start({}, work)
    reached.wait()
    with pytest.raises(Problem) as busy:
        background.start({}, work)
    assert busy.value.status == 429
    assert background.status(check_if_running=True)["status"] == RUNNING
    assert background.stop() is not None
    assert (ended(background)["status"], ended(background)["result"]) == (STOPPED, {"done": 1})
    assert background.stop() is None


@pytest.mark.parametrize("error", [ImageRefused(SECRET), ValueError(SECRET)])
def test_an_error_is_told_without_words_that_may_name_people(background: Background, error: Exception) -> None:
    def work(stop: Event) -> Mapping[str, Any]:
        raise error

    background.start({}, work)
    found = ended(background)
    assert found["status"] == ERROR
    assert found["details"] and SECRET not in str(found)


def test_nothing_yet_is_unknown(background: Background) -> None:
    with pytest.raises(Problem) as none:
        background.status()
    assert none.value.status == 404
