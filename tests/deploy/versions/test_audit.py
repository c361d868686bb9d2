"""An audit log keeps every event, from any process; what is changed, cut, written anew or taken away is found."""

from __future__ import annotations

import json
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.deploy.versions.audit import START, AuditLog, account, syslog_at
from scripts.utils.errors import UserError
from scripts.utils.signing import SigningKey

BUNDLE = Path(__file__).resolve().parents[3] / "bundle"


def made(folder: Path, key: Path, events: int = 4) -> AuditLog:
    """Write a log of some events."""
    SigningKey(key).make()
    log = AuditLog(folder / "audit.jsonl", key)
    for number in range(events):
        log.add("added", {"version": number}, "Zoë")
    return log


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    return made(tmp_path / "store", tmp_path / "key")


def head_file(log: AuditLog) -> Path:
    return Path(f"{log.key.path}.head")


def test_events_are_read_as_they_were_written_each_with_the_hash_of_the_one_before(log: AuditLog) -> None:
    events = log.events()
    assert [(event["version"], event["by"]) for event in events] == [(number, "Zoë") for number in range(4)]
    assert [event["previous"] for event in events] == [START, *(event["hash"] for event in events[:-1])]
    assert log.head == events[-1]["hash"]


@pytest.mark.parametrize("name", ["log", "head"])
def test_every_changed_byte_is_found(log: AuditLog, name: str) -> None:
    path = log.path if name == "log" else head_file(log)
    content = path.read_bytes()
    for position in range(0, len(content), 7):  # 7 divides no line: each part of one is met
        changed = bytearray(content)
        changed[position] ^= 1
        path.write_bytes(changed)
        with pytest.raises(UserError, match="was changed|was cut|was written anew"):
            log.events()


@pytest.mark.parametrize("lines", [(1, 2, 3), (0, 2, 3), (0, 2, 1, 3), (0, 0, 1, 2, 3)])
def test_a_removed_a_moved_and_a_repeated_line_are_found(log: AuditLog, lines: tuple[int, ...]) -> None:
    before = log.path.read_bytes().splitlines(keepends=True)
    log.path.write_bytes(b"".join(before[line] for line in lines))
    with pytest.raises(UserError, match=r"line \d is not as written"):
        log.events()
    with pytest.raises(UserError, match="was changed"):
        log.add("added", {}, "Zoë")


def test_a_cut_tail_and_a_log_that_is_gone_are_found(log: AuditLog) -> None:
    log.path.write_bytes(b"".join(log.path.read_bytes().splitlines(keepends=True)[:-1]))
    with pytest.raises(UserError, match=r"was cut: it has 3 events, and had 4"):
        log.events()
    with pytest.raises(UserError, match="was cut"):
        log.add("added", {}, "Zoë")
    log.path.unlink()
    with pytest.raises(UserError, match=r"was cut: it has 0 events, and had 4"):
        log.events()


def test_a_chain_written_whole_anew_has_no_signature_of_the_key(log: AuditLog, tmp_path: Path) -> None:
    forged = made(tmp_path / "forged", tmp_path / "forgers_key")
    log.path.write_bytes(forged.path.read_bytes())
    with pytest.raises(UserError, match=r"line 1 is not as written, or not signed with .*/key"):
        log.events()


def test_a_chain_written_anew_with_the_key_has_another_head(log: AuditLog, tmp_path: Path) -> None:
    other = AuditLog(tmp_path / "other" / "audit.jsonl", log.key.path)
    kept = head_file(log).read_bytes()
    head_file(log).unlink()
    for number in range(4):
        other.add("added", {"version": 10 + number}, "Mallory")
    head_file(log).write_bytes(kept)
    log.path.write_bytes(other.path.read_bytes())
    with pytest.raises(UserError, match="was written anew: event 4 is another one"):
        log.events()


def test_a_head_that_is_lost_is_kept_again_for_who_has_it_from_elsewhere(log: AuditLog) -> None:
    head = log.head
    head_file(log).unlink()
    with pytest.raises(UserError, match="compare the log with a head kept elsewhere"):
        log.events()
    with pytest.raises(UserError, match="is another one"):
        log.vouch(START)
    log.vouch(head)
    assert len(log.events()) == 4


def test_who_has_the_public_half_alone_checks_and_adds_nothing(log: AuditLog) -> None:
    log.key.path.unlink()
    assert len(log.events()) == 4
    with pytest.raises(UserError, match="no key .*, and .* is there: put back a copy of it"):
        log.add("added", {}, "Zoë")


def test_the_key_is_its_owners_alone_and_is_never_replaced(log: AuditLog) -> None:
    assert stat.S_IMODE(log.key.path.stat().st_mode) == 0o600
    with pytest.raises(UserError, match="is there already"):
        log.key.make()
    log.key.path.chmod(0o640)
    with pytest.raises(UserError, match="others can read the key"):
        log.add("added", {}, "Zoë")
    log.key.path.chmod(0o600)
    log.key.path.write_bytes(b"no key")
    with pytest.raises(UserError, match="is no key"):
        log.add("added", {}, "Zoë")


def test_each_new_head_is_told_a_syslog(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(10)
        SigningKey(tmp_path / "key").make()
        log = AuditLog(tmp_path / "audit.jsonl", tmp_path / "key", syslog_at(f"127.0.0.1:{server.getsockname()[1]}"))
        log.add("added", {}, "Zoë")
        assert f"audit log: 1 events, head {log.head}".encode() in server.recv(1000)
    with pytest.raises(UserError, match="no syslog at .*nowhere"):
        syslog_at(str(tmp_path / "nowhere"))("head")


def test_processes_that_add_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    SigningKey(tmp_path / "key").make()
    code = "import sys; from scripts.deploy.versions.audit import AuditLog; log = AuditLog(*sys.argv[1:3])\n"
    code += "for number in range(10): log.add('added', {'of': sys.argv[3], 'number': number}, 'Zoe')"
    places = [str(tmp_path / name) for name in ("audit.jsonl", "key")]
    started = [subprocess.Popen([sys.executable, "-c", code, *places, name], cwd=BUNDLE) for name in "abc"]
    assert [process.wait(timeout=300) for process in started] == [0, 0, 0]
    found = [(event["of"], event["number"]) for event in AuditLog(*places).events()]
    assert sorted(found) == [(name, number) for name in "abc" for number in range(10)]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"):
        AuditLog(tmp_path / "file" / "audit.jsonl", tmp_path / "key").add("added", {}, "Zoë")


def test_who_runs_the_process_is_known_by_name_or_number(monkeypatch: pytest.MonkeyPatch) -> None:
    assert account()
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)  # as in a container run with --user 12345
    assert account().startswith("uid ")


def test_what_is_logged_is_read_by_any_program(log: AuditLog) -> None:
    lines = [json.loads(line) for line in log.path.read_text().splitlines()]
    assert {"time", "event", "by", "previous", "hash", "signature"} <= lines[0].keys()
