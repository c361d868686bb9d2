"""A log of JSON lines: each line says what it belongs to, and none what a caller sent."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from contextvars import copy_context
from typing import Any

import pytest

from scripts.deploy.logs import JsonFormatter, Log, begin_request

SECRET = "Doe^Jane"


@pytest.fixture
def written() -> Iterator[tuple[logging.Logger, io.StringIO]]:
    """A logger, and what it writes as JSON."""
    text, logger = io.StringIO(), logging.getLogger("scripts.test_logs")
    handler = logging.StreamHandler(text)
    handler.setFormatter(JsonFormatter())
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield logger, text
    logger.removeHandler(handler)


def lines(text: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.getvalue().splitlines()]


def test_each_record_is_one_json_object_in_one_line(written: tuple[logging.Logger, io.StringIO]) -> None:
    logger, text = written
    logger.warning("Refused %s:\n%s", "abc", 'a "reason"')
    (line,) = lines(text)
    assert line["message"] == 'Refused abc:\na "reason"'
    assert (line["level"], line["logger"]) == ("WARNING", "scripts.test_logs")
    assert line["time"].endswith("+00:00") and "request" not in line


def test_lines_of_one_request_have_one_id(written: tuple[logging.Logger, io.StringIO]) -> None:
    logger, text = written

    def answer() -> str:
        name = begin_request()
        logger.info("one")
        logger.info("two")
        return name

    names = [copy_context().run(answer) for _ in range(2)]
    assert [line["request"] for line in lines(text)] == [names[0]] * 2 + [names[1]] * 2
    assert names[0] != names[1]


def test_an_exception_is_named_without_its_words(written: tuple[logging.Logger, io.StringIO]) -> None:
    logger, text = written
    try:
        raise ValueError(SECRET)
    except ValueError:
        logger.exception("A fault")
    (line,) = lines(text)
    assert SECRET not in text.getvalue()
    assert line["fault"].startswith("ValueError in ") and "test_logs.py" in line["fault"]


def test_text_is_what_is_written_unless_json_is_asked_for() -> None:
    handler = logging.StreamHandler(io.StringIO())
    logging.getLogger().addHandler(handler)
    before = {one: one.formatter for one in logging.getLogger().handlers}
    try:
        Log(as_json=False).begin()
        assert handler.formatter is None
        Log(as_json=True).begin()
        assert isinstance(handler.formatter, JsonFormatter)
    finally:
        logging.getLogger().removeHandler(handler)
        for one, formatter in before.items():
            one.setFormatter(formatter)
    assert not isinstance(Log(as_json=False).formatter(), JsonFormatter)
