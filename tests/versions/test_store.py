"""Versions never change, one is served at any moment, and a killed process leaves neither half a version nor two."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from scripts.errors import UserError
from scripts.versions.store import PROMOTED, RECORD, VersionStore

TESTED = {"images": {"a": 1}, "recalls": {"a": 1.0}, "mean_class_recall": 1.0, "calibration_error": 0.1, "refused": 0}
DETAILS: dict[str, Any] = {
    "name": "data-method-backbone",
    "tasks": [{"name": "first", "classes": ["a"]}],
    "tested": TESTED,
    "accuracy_matrix": [[1.0]],
    "config": {"seed": 1},
}


@pytest.fixture
def store(tmp_path: Path) -> VersionStore:
    store = VersionStore(tmp_path / "store")
    for number in range(3):
        store.add({"model.pt": bytes([number]) * 9, "network.json": b"{}"}, DETAILS, number or None)
    return store


def test_a_version_is_what_was_added_and_read_only(store: VersionStore) -> None:
    version = store.version(2)
    assert (version.number, version.parent) == (2, 1)
    assert (version.folder / "model.pt").read_bytes() == b"\1" * 9
    assert version.record["name"] == DETAILS["name"]
    assert all(not stat.S_IMODE(path.stat().st_mode) & 0o222 for path in [version.folder, *version.folder.iterdir()])
    store.check()


@pytest.mark.parametrize("name", ["model.pt", "network.json", RECORD, "model_card.md"])
def test_a_changed_byte_of_any_file_is_found_and_the_version_is_not_served(store: VersionStore, name: str) -> None:
    path = store.version(2).folder / name
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[1 if name != RECORD else -2] ^= 1 if name != RECORD else 0
    path.write_bytes(content + (b" " if name == RECORD else b""))
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


def test_a_promotion_cut_short_is_completed_by_whoever_comes_next(store: VersionStore) -> None:
    store.promote(1)
    store.audit.add("promoted", {"version": 3})  # a process was killed here
    assert os.readlink(store.folder / PROMOTED) == "versions/0001"
    store.settle()
    served = store.promoted()
    assert served is not None
    assert served.number == 3


def test_an_addition_cut_short_leaves_no_version_and_its_number_free(store: VersionStore) -> None:
    half = store.folder / "versions" / ".0004.partial"
    half.mkdir()
    (half / "model.pt").write_bytes(b"half")
    store.audit.add("added", {"version": 4, "parent": None, "files": {}})
    assert [version.number for version in store.versions()] == [1, 2, 3]
    assert store.add({"model.pt": b"whole", "network.json": b"{}"}, DETAILS, None).number == 4
    store.check()


def test_an_unknown_version_is_refused_with_those_there_are(store: VersionStore, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no version 9: choose among those there are \(1, 2, 3\)"):
        store.promote(9)
    with pytest.raises(UserError, match="none yet"):
        VersionStore(tmp_path / "empty").version(1)
    assert VersionStore(tmp_path / "empty").promoted() is None
