"""An audit log keeps every event, from any process, and a changed byte is found."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.errors import UserError
from scripts.versions.audit import START, AuditLog

BUNDLE = Path(__file__).resolve().parents[2] / "bundle"


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    log = AuditLog(tmp_path / "audit.jsonl")
    for number in range(4):
        log.add("added", {"version": number, "who": "Zoë"})
    return log


def test_events_are_read_as_they_were_written_each_with_the_hash_of_the_one_before(log: AuditLog) -> None:
    events = log.events()
    assert [event["version"] for event in events] == [0, 1, 2, 3]
    assert [event["previous"] for event in events] == [START, *(event["hash"] for event in events[:-1])]
    assert log.head == events[-1]["hash"]


def test_every_changed_byte_is_found(log: AuditLog) -> None:
    content = log.path.read_bytes()
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= 1
        log.path.write_bytes(changed)
        with pytest.raises(UserError, match="was changed"):
            log.events()


@pytest.mark.parametrize("lines", [(1, 2, 3), (0, 2, 3), (0, 2, 1, 3), (0, 0, 1, 2, 3)])
def test_a_removed_a_moved_and_a_repeated_line_are_found(log: AuditLog, lines: tuple[int, ...]) -> None:
    before = log.path.read_bytes().splitlines(keepends=True)
    log.path.write_bytes(b"".join(before[line] for line in lines))
    with pytest.raises(UserError, match=r"line \d is not as written"):
        log.events()
    with pytest.raises(UserError, match="was changed"):
        log.add("added", {})


def test_lines_cut_off_at_the_end_are_told_by_the_head_alone(log: AuditLog) -> None:
    head = log.head
    log.path.write_bytes(b"".join(log.path.read_bytes().splitlines(keepends=True)[:-1]))
    assert len(log.events()) == 3
    assert log.head != head


def test_processes_that_add_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    code = "import sys; from scripts.versions.audit import AuditLog; log = AuditLog(sys.argv[1])\n"
    code += "for number in range(20): log.add('added', {'of': sys.argv[2], 'number': number})"
    path = tmp_path / "audit.jsonl"
    started = [subprocess.Popen([sys.executable, "-c", code, str(path), name], cwd=BUNDLE) for name in "abc"]
    assert [process.wait(timeout=300) for process in started] == [0, 0, 0]
    found = [(event["of"], event["number"]) for event in AuditLog(path).events()]
    assert sorted(found) == [(name, number) for name in "abc" for number in range(20)]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"):
        AuditLog(tmp_path / "file" / "audit.jsonl").add("added", {})
