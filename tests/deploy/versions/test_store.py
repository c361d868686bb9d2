"""Versions never change, one is served at any moment, and a killed process leaves neither half a version nor two."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from scripts.deploy.versions.store import PROMOTED, VersionStore
from scripts.utils.errors import UserError
from scripts.utils.files import VERSION

TESTED = {"images": {"a": 1}, "recalls": {"a": 1.0}, "mean_class_recall": 1.0, "calibration_error": 0.1, "refused": 0}
DETAILS: dict[str, Any] = {
    "name": "data-method-backbone",
    "tasks": [{"name": "first", "classes": ["a"]}],
    "tested": TESTED,
    "accuracy_matrix": [[1.0]],
    "config": {"seed": 1},
    "licence": "bsd-3-clause",
}


@pytest.fixture
def store(tmp_path: Path) -> VersionStore:
    store = VersionStore(tmp_path / "store")
    for number in range(3):
        store.add({"model.pt": bytes([number]) * 9, "network.json": b"{}"}, DETAILS, number or None)
    return store


def test_what_is_written_down_is_done_where_nobody_can_be_told(store: VersionStore, tmp_path: Path) -> None:
    store.promote(1)
    store.promote(2)
    deaf = VersionStore(store.folder, syslog=str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="no syslog at .*nowhere"):
        deaf.rollback()
    served = store.promoted()
    assert served is not None and (served.number, store.history()) == (1, [1])
    with pytest.raises(UserError, match="no syslog"):
        deaf.promote(3)
    served = store.promoted()
    assert served is not None and (served.number, store.history()) == (3, [1, 3])
    with pytest.raises(UserError, match="no syslog"):
        deaf.add({"model.pt": b"more", "network.json": b"{}"}, DETAILS, 3)
    assert [version.number for version in store.versions()] == [1, 2, 3, 4]
    store.check()


def test_a_version_is_what_was_added_and_read_only(store: VersionStore) -> None:
    version = store.version(2)
    assert (version.number, version.parent) == (2, 1)
    assert (version.folder / "model.pt").read_bytes() == b"\1" * 9
    assert version.record["name"] == DETAILS["name"]
    assert all(not stat.S_IMODE(path.stat().st_mode) & 0o222 for path in [version.folder, *version.folder.iterdir()])
    store.check()


@pytest.mark.parametrize("name", ["model.pt", "network.json", VERSION, "model_card.md", "SHA256SUMS"])
def test_a_changed_byte_of_any_file_is_found_and_the_version_is_not_served(store: VersionStore, name: str) -> None:
    path = store.version(2).folder / name
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[1 if name != VERSION else -2] ^= 1 if name != VERSION else 0
    path.write_bytes(content + (b" " if name == VERSION else b""))
    with pytest.raises(UserError, match="is not as it was added"):
        store.check()
    store.promote(1)
    with pytest.raises(UserError, match="is not as it was added"):
        store.promote(2)
    served = store.promoted()
    assert served is not None
    assert served.number == 1


def test_a_version_that_was_put_there_by_hand_is_not_served(store: VersionStore) -> None:
    os.rename(store.version(3).folder, store.folder / "versions" / "0007")
    record = store.folder / "versions" / "0007"
    with pytest.raises(UserError, match="is not in the audit log"):
        store.promote(7)
    assert record.is_dir()


def test_rollbacks_go_back_through_the_promotions(store: VersionStore) -> None:
    for number in (1, 3, 3, 2):  # what is served already is not promoted again
        store.promote(number)
    assert [store.rollback(), store.rollback()] == [3, 1]
    served = store.promoted()
    assert served is not None
    assert served.number == 1
    with pytest.raises(UserError, match="no promotion to take back"):
        store.rollback()
    events = [event["event"] for event in store.audit.events()]
    assert events == ["added"] * 3 + ["promoted"] * 3 + ["rolled back"] * 2


def cut_short(store: VersionStore) -> None:
    """Leave what a process leaves that is killed while it promotes version 3."""
    head = Path(f"{store.audit.key.path}.head")
    before = head.read_bytes()
    store.audit.add("promoted", {"version": 3}, "Zoe")
    head.write_bytes(before)


def test_a_promotion_cut_short_is_completed_once_the_log_was_verified(store: VersionStore) -> None:
    store.promote(1)
    cut_short(store)
    before = snapshot(store.folder.parent)
    with pytest.raises(UserError, match="leads to version 1, and the audit log says 3: run recover"):
        store.check()
    assert os.readlink(store.folder / PROMOTED) == "versions/0001"
    assert snapshot(store.folder.parent) == before, "to look changes nothing"
    store.recover()
    store.check()
    served = store.promoted()
    assert served is not None
    assert served.number == 3


def snapshot(folder: Path) -> dict[str, bytes | str]:
    """Return what lies in a folder."""
    paths = [path for path in folder.rglob("*") if path.is_symlink() or path.is_file()]
    return {str(path): os.readlink(path) if path.is_symlink() else path.read_bytes() for path in paths}


def test_a_withdrawn_version_is_not_served_again_by_cutting_the_log(store: VersionStore) -> None:
    store.promote(1)
    store.promote(3)
    assert store.rollback() == 1
    lines = store.audit.path.read_bytes().splitlines(keepends=True)
    store.audit.path.write_bytes(b"".join(lines[:-1]))  # the rollback is gone, version 3 would be the promoted one
    before = snapshot(store.folder.parent)
    for act in (store.check, store.recover, store.rollback, store.history, lambda: store.promote(2)):
        with pytest.raises(UserError, match="was cut: it has 5 events, and had 6"):
            act()
    assert snapshot(store.folder.parent) == before


def test_a_removed_log_is_said_and_no_new_key_takes_its_place(store: VersionStore) -> None:
    store.promote(1)
    store.audit.path.unlink()
    with pytest.raises(UserError, match="was cut: it has 0 events, and had 4"):
        store.check()
    for path in store.folder.parent.glob("store.key*"):
        path.unlink()
    with pytest.raises(UserError, match="is not in the audit log"):
        store.check()
    with pytest.raises(UserError, match="no key"):
        store.add({"model.pt": b"other", "network.json": b"{}"}, DETAILS, None)


def test_an_addition_cut_short_leaves_no_version_and_its_number_free(store: VersionStore) -> None:
    half = store.folder / "versions" / ".0004.partial"
    half.mkdir()
    (half / "model.pt").write_bytes(b"half")
    store.audit.add("added", {"version": 4, "parent": None, "files": {}}, "Zoe")
    assert [version.number for version in store.versions()] == [1, 2, 3]
    assert store.add({"model.pt": b"whole", "network.json": b"{}"}, DETAILS, None).number == 4
    store.check()


def test_an_unknown_version_is_refused_with_those_there_are(store: VersionStore, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no version 9: choose among those there are \(1, 2, 3\)"):
        store.promote(9)
    with pytest.raises(UserError, match="none yet"):
        VersionStore(tmp_path / "empty").version(1)
    assert VersionStore(tmp_path / "empty").promoted() is None
