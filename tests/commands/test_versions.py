"""The command of the versions: who promotes what, and that looking changes nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scripts.commands.versions import main, served_folder
from scripts.deploy.versions.audit import account
from scripts.deploy.versions.gate import ANSWERS
from scripts.deploy.versions.store import VersionStore

TESTED = {"images": {}, "recalls": {}, "mean_class_recall": 1.0, "calibration_error": 0.1, "refused": 0}
Said = tuple[int, str, str]
ANYTHING = ("--class_margin", "1", "--mean_margin", "1", "--class_floor", "0", "--mean_floor", "0")


@pytest.fixture
def store(tmp_path: Path) -> VersionStore:
    return VersionStore(tmp_path / "store")


def add(store: VersionStore, **right: tuple[int, int]) -> int:
    """Add a version that tells so many of so many test images of each class, and return its number."""
    answers = {
        f"{name}{number}": (name, name if number < told else "another")
        for name, (told, images) in right.items()
        for number in range(images)
    }
    details: dict[str, Any] = {"name": "a", "tested": TESTED, "accuracy_matrix": [[1.0]], "config": {}, "licence": "a"}
    details["tasks"] = [{"name": "first", "classes": [*right]}]
    return store.add({"model.pt": b"weights", ANSWERS: json.dumps(answers).encode()}, details, None).number


@pytest.fixture
def versions(store: VersionStore, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Runs the command and returns its exit status and what it printed."""

    def run(*arguments: str) -> Said:
        status = main([str(store.folder), *arguments])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


def promoted(store: VersionStore) -> int | None:
    version = store.promoted()
    return None if version is None else version.number


def test_a_melanoma_lost_is_not_made_up_for_by_a_naevus(store: VersionStore, versions: Callable[..., Said]) -> None:
    add(store, melanoma=(90, 100), naevus=(60, 100))
    add(store, melanoma=(60, 100), naevus=(90, 100))
    assert versions("promote", "1")[0] == 0
    status, _, said = versions("promote", "2", "--reason", "on average it is as good")
    assert (status, promoted(store)) == (3, 1)
    assert "melanoma: it may have lost 40.4 points" in said and "naevus" not in said.split("mean:")[0]
    event = store.audit.events()[-1]
    assert (event["event"], event["by"]) == ("refused", account())
    assert event["objections"][0].startswith("melanoma: ")


def test_notes_say_what_changed_class_by_class_and_what_the_gate_said(
    store: VersionStore, versions: Callable[..., Said]
) -> None:
    recalls = ({"old": 0.9}, {"old": 0.8, "new": 0.7})
    for number, recall in enumerate(recalls):
        tasks = [{"name": name, "classes": [name]} for name in recall]
        tested = {**TESTED, "images": dict.fromkeys(recall, 50), "recalls": recall}
        details = {"name": "a", "tested": tested, "tasks": tasks, "accuracy_matrix": [[1.0]], "licence": "a"}
        details["config"] = {"seed": number, "train": {"_target_": "a"}}
        store.add({"model.pt": b"%d" % number, ANSWERS: b"{}"}, details, number or None)
    assert versions("promote", "2")[0] == 3
    status, said, _ = versions("notes", "2")
    assert status == 0 and said.startswith("# a, version 2: since version 1")
    assert "- learnt: new (new)" in said and "- setting seed: 0 before, 1 now" in said and "_target_" not in said
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in said.splitlines()]
    assert ["old", "50", "90.0", "80.0", "-10.0"] in rows and ["new", "50", "", "70.0", ""] in rows
    assert f"by {account()}: refused by the gate" in said and "  - objection: " in said
    assert "description of modifications" in said and "Annex IV" in said
    assert versions("notes", "1")[1].startswith("# a, version 1: a first version")


def test_where_images_are_too_few_a_named_person_answers_with_a_reason(
    store: VersionStore, versions: Callable[..., Said]
) -> None:
    add(store, melanoma=(60, 60), rare=(8, 8))
    add(store, melanoma=(60, 60), rare=(8, 8))
    assert versions("promote", "1")[0] == 0
    status, _, said = versions("promote", "2")
    assert (status, promoted(store)) == (3, 1)
    assert "rare: it may have lost " in said and "; 38 such images would decide" in said
    assert said.endswith("version 1 is served as before; whoever answers for it gives --reason\n")
    words = ("--by", "Dr Zoe", "promote", "2", "--reason", "two colleagues have looked at all of them")
    assert versions(*words) == (0, "Version 2 is served now.\n", "")
    event = store.audit.events()[-1]
    assert (event["event"], event["by"], event["reason"]) == ("promoted", "Dr Zoe", words[-1])
    assert event["objections"][0].startswith("rare: ") and event["asked"]["class_margin"] == 0.1


def test_the_first_version_passes_a_floor_too(
    store: VersionStore, versions: Callable[..., Said], tmp_path: Path
) -> None:
    add(store, a=(14, 80), b=(14, 80))
    status, _, said = versions("promote", "1")
    assert (status, promoted(store)) == (3, None)
    assert "mean: its recall is 17.5 %, under the floor of 50.0 %: nothing is served yet" in said
    add(store, a=(40, 80), b=(41, 80))
    assert versions("promote", "2")[0] == 0


def test_what_only_looks_changes_nothing_and_recover_completes(
    store: VersionStore, versions: Callable[..., Said]
) -> None:
    for _ in range(2):
        add(store, a=(80, 80))
    assert versions("promote", "1")[0] == 0
    store.audit.add("promoted", {"version": 2}, "Zoe")  # a process was killed here
    before = {path: path.stat().st_mtime_ns for path in store.folder.parent.rglob("*")}
    for words in (("list",), ("check",), ("card", "1")):
        versions(*words)
    assert {path: path.stat().st_mtime_ns for path in store.folder.parent.rglob("*")} == before
    assert promoted(store) == 1
    assert versions("check")[0] == 1
    assert versions("recover") == (0, "Version 2 is served.\n", "")
    assert promoted(store) == 2
    os.replace(store.folder / "promoted", store.folder / "aside")
    assert served_folder(store) and promoted(store) == 2, "the serving door completes, too"


def test_a_head_kept_elsewhere_is_compared(store: VersionStore, versions: Callable[..., Said], tmp_path: Path) -> None:
    add(store, a=(80, 80))
    head = store.audit.head
    add(store, a=(80, 80))
    assert versions("check", "--head", head)[0] == 0
    assert "it was cut or written anew" in versions("check", "--head", "0" * 64)[2]
    assert versions("stamp", str(tmp_path / "request.tsq"))[0] == 0
    assert "Give the authority's certificate" in versions("check", "--timestamp", str(tmp_path / "answer.tsr"))[2]


def test_a_key_is_made_elsewhere(store: VersionStore, versions: Callable[..., Said], tmp_path: Path) -> None:
    key = str(tmp_path / "safe" / "key")
    assert versions("--key", key, "key")[0] == 0
    assert "is there already" in versions("--key", key, "key")[2]
    kept = VersionStore(store.folder, key)
    add(kept, a=(80, 80))
    assert versions("--key", key, "check")[0] == 0
    status, _, said = versions("check")
    assert (status, "no key" in said) == (1, True)


def test_a_lost_key_is_not_replaced_by_another(store: VersionStore, versions: Callable[..., Said]) -> None:
    add(store, a=(1, 1))
    store.audit.key.path.unlink()
    status, _, said = versions("key")
    assert status == 1 and "store.key.pub is there already" in said
    assert not store.audit.key.path.exists(), "no other key is made, of which the log would not be signed"
    assert versions("check")[0] == 0
    assert "put back a copy of it" in versions("promote", "1", *ANYTHING)[2]
