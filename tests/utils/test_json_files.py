"""A JSON file is read once, and anew as soon as it is another."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scripts.utils.errors import UserError
from scripts.utils.json_files import JsonFiles


def test_a_file_is_read_once_until_its_time_or_its_size_is_another(tmp_path: Path) -> None:
    read, path = JsonFiles({"type": "array"}, "restore it", most=4), tmp_path / "a.json"
    path.write_text("[1]")
    first = read(path)
    assert first == [1] and read(path) is first
    path.write_text("[2]")
    os.utime(path, ns=(1, 1))
    assert read(path) == [2]
    path.write_text("[2, 3]")
    os.utime(path, ns=(1, 1))
    assert read(path) == [2, 3]


def test_what_is_wrong_is_said_each_time(tmp_path: Path) -> None:
    read, path = JsonFiles({"type": "array"}, "restore it", most=4), tmp_path / "a.json"
    for _ in range(2):
        with pytest.raises(UserError, match="cannot be read .*: restore it"):
            read(path)
    path.write_text("{}")
    for _ in range(2):
        with pytest.raises(UserError, match="not as it should be"):
            read(path)
    path.write_text("[]")
    assert read(path) == []
