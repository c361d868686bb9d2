"""A session keeps an image for a while and no longer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scripts.deploy.service import sessions as module
from scripts.deploy.service.problems import Problem
from scripts.deploy.service.sessions import Sessions
from scripts.imaging.transforms.reader import read_rgb

PICTURE = np.random.default_rng(0).integers(0, 256, (5, 4, 3)).astype(np.uint8)


@pytest.fixture
def sessions(tmp_path: Path) -> Sessions:
    return Sessions(tmp_path / "sessions", 100)


def test_the_image_is_kept_until_the_session_is_removed(sessions: Sessions) -> None:
    name = sessions.add(PICTURE, 0)["name"]
    path = sessions.path(name)
    assert (read_rgb(str(path)) == PICTURE).all()
    assert sessions.remove(name)["name"] == name
    assert not path.exists()
    with pytest.raises(Problem):
        sessions.get(name)


@pytest.mark.parametrize(("asked", "kept"), [(0, 100), (-1, 100), (7, 7), (1000, 100)])
def test_a_session_lasts_as_long_as_asked_for_and_at_most_as_allowed(sessions: Sessions, asked: int, kept: int) -> None:
    assert sessions.add(PICTURE, asked)["expiry"] == kept


def test_a_session_is_over_when_nobody_asked(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    name, other = sessions.add(PICTURE, 10)["name"], sessions.add(PICTURE, 50)["name"]
    path, start = sessions.path(name), sessions.get(name)["create_ts"]
    monkeypatch.setattr(module.time, "time", lambda: start + 30)
    with pytest.raises(Problem):
        sessions.get(name)
    assert sessions.get(other)["last_access_ts"] == start + 30
    sessions.add(PICTURE, 0)
    assert not path.exists()


def test_only_so_many_are_kept_the_oldest_go_first(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST", 2)
    names = []
    for moment in range(4):
        monkeypatch.setattr(module.time, "time", lambda moment=moment: 1000 + moment)
        names.append(sessions.add(PICTURE, 0)["name"])
    assert len(list(sessions.folder.iterdir())) == 2
    assert [sessions.get(name)["name"] for name in names[2:]] == names[2:]


def test_a_restart_empties_the_folder(sessions: Sessions) -> None:
    sessions.add(PICTURE, 0)
    Sessions(sessions.folder, 100)
    assert not sessions.folder.exists()
