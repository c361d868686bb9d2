"""A long loop says how far it is; a short one says nothing."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest

from scripts.utils import looked_on as module
from scripts.utils.looked_on import BETWEEN, looked_on


@pytest.mark.parametrize(
    ("seconds", "lines"),
    [(0.0, []), (BETWEEN / 4, ["Reading 10 images: 1 done", "Reading 10 images: 5 done", "Reading 10 images: 9 done"])],
)
def test_a_line_comes_now_and_then_where_there_is_no_terminal(
    seconds: float, lines: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    done: list[int] = []
    monkeypatch.setattr("sys.stderr.isatty", lambda: False)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: len(done) * seconds))
    with caplog.at_level(logging.INFO, logger=module.__name__):
        for one in looked_on(range(10), "Reading", 10):
            done.append(one)
    assert done == list(range(10))
    assert [entry.getMessage() for entry in caplog.records] == lines
