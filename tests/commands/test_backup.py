"""A backup is whole or not there, holds one moment of what goes on, and comes back as it was or not at all."""

from __future__ import annotations

import json
import os
import random
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scripts.commands.backup import MANIFEST, backup, restore
from scripts.deploy.queue import ImageQueue, State
from scripts.deploy.service.images import ImageStore, Tag
from scripts.deploy.versions.store import VersionStore
from scripts.utils import formats
from scripts.utils.errors import UserError
from scripts.utils.files import whole_folder
from scripts.utils.sums import file_sha256

TESTED = {"images": {"a": 1}, "recalls": {"a": 1.0}, "mean_class_recall": 1.0, "calibration_error": 0.1, "refused": 0}
DETAILS: dict[str, Any] = {
    "name": "data-method-backbone",
    "tasks": [{"name": "first", "classes": ["a"]}],
    "tested": TESTED,
    "accuracy_matrix": [[1.0]],
    "config": {},
    "licence": "bsd-3-clause",
}
Put = Callable[[Any, str, bytes], bool]


@pytest.fixture
def queue(tmp_path: Path, put: Put) -> Iterator[ImageQueue]:
    """A queue in use: one image answered, one classified, one waiting, one refused."""
    made = ImageQueue(str(tmp_path / "node"), lambda: "model")
    for number in range(4):
        put(made, f"1.{number}", b"image %d" % number)
    for step in (
        lambda entry: made.sent(made.classified(entry, [b"sent"])),
        lambda entry: made.classified(entry, [b"kept"]),
        lambda entry: made.refused(entry, "corrupt_pixels"),
    ):
        step(made.next([State.RECEIVED]))
    yield made
    made.close()


@pytest.fixture
def store(tmp_path: Path) -> VersionStore:
    made = VersionStore(tmp_path / "versions")
    for number in range(3):
        made.add({"model.pt": bytes([number]) * 9, "network.json": b"{}"}, DETAILS, number or None)
    made.promote(1)
    made.promote(3)
    return made


def served(store: VersionStore) -> int | None:
    version = store.promoted()
    return None if version is None else version.number


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_queue_that_is_in_use_comes_back_as_it_was(queue: ImageQueue, tmp_path: Path, put: Put) -> None:
    backup([queue.folder], tmp_path / "backup", with_keys=True)
    put(queue, "1.9", b"after it")
    restore(tmp_path / "backup", tmp_path / "restored")
    counts = {
        State.RECEIVED: 1,
        State.CLASSIFIED: 1,
        State.SENT: 1,
        State.FAILED: 0,
        State.REFUSED: 1,
        State.IGNORED: 0,
    }
    again = ImageQueue(str(tmp_path / "restored/node"), lambda: "model")
    try:
        assert again.counts() == counts
        assert not put(again, "1.0", b"image 0"), "it is known by the same key"
        waiting = again.next([State.RECEIVED])
        assert waiting is not None and waiting.image.read_bytes() == b"image 3"
        classified = again.next([State.CLASSIFIED])
        assert classified is not None and classified.results == (b"kept",)
    finally:
        again.close()
    assert queue.counts()[State.RECEIVED] == 2


def test_what_comes_and_goes_meanwhile_is_in_the_copy_whole_or_not_at_all(
    queue: ImageQueue, tmp_path: Path, put: Put
) -> None:
    stop = threading.Event()

    def work() -> None:
        number = 100
        while not stop.is_set():
            put(queue, f"2.{number}", b"image %d" % number)
            if number % 2 and (entry := queue.next([State.RECEIVED])):
                queue.classified(entry, [b"result"])
            number += 1

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for number in range(5):
            backup([queue.folder], tmp_path / f"backup{number}", with_keys=True)
    finally:
        stop.set()
        worker.join()
    for number in range(5):
        restore(tmp_path / f"backup{number}", tmp_path / f"restored{number}")
        again = ImageQueue(str(tmp_path / f"restored{number}/node"), lambda: "model")
        files = {path.name for path in (again.folder / "images").iterdir()}
        assert len(files) == again.counts()[State.RECEIVED], "each image that waits is there, and no other"
        while entry := again.next([State.RECEIVED]):
            assert entry.image.read_bytes().startswith(b"image ")
            again.sent(again.classified(entry, [b"result"]))
        again.close()


def test_a_store_comes_back_with_its_log_and_what_it_serves(store: VersionStore, tmp_path: Path) -> None:
    backup([store.folder], tmp_path / "backup", with_keys=True)
    store.rollback()
    VersionStore(tmp_path / "backup/versions").check()  # the backup is a store itself
    restore(tmp_path / "backup", tmp_path / "restored")
    again = VersionStore(tmp_path / "restored/versions")
    again.check()
    assert (served(again), again.history(), [version.number for version in again.versions()]) == (3, [1, 3], [1, 2, 3])
    assert again.rollback() == 1, "it has the key, and goes on"
    folders = [again.version(2).folder, *again.version(2).folder.iterdir()]
    assert all(not stat.S_IMODE(path.stat().st_mode) & 0o222 for path in folders)


def test_keys_are_copied_where_they_are_asked_for_alone_and_for_the_owners_eyes(
    queue: ImageQueue, store: VersionStore, tmp_path: Path
) -> None:
    said = backup([queue.folder, store.folder], tmp_path / "without", with_keys=False)
    assert "No key is in it: put back node/key, versions.key of your own copy" in said
    assert restore(tmp_path / "without", tmp_path / "restored").endswith("answered again.")
    assert not (tmp_path / "restored/node/key").exists() and not (tmp_path / "restored/versions.key").exists()
    again = VersionStore(tmp_path / "restored/versions")
    again.check()  # by the public half
    with pytest.raises(UserError, match="no key .*versions.key, and .* put back a copy"):
        again.rollback()
    assert "The keys are in it (node/key, versions.key)" in backup(
        [queue.folder, store.folder], tmp_path / "with", True
    )
    for name in ("node/key", "versions.key"):
        assert stat.S_IMODE((tmp_path / "with" / name).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "with").stat().st_mode) == 0o700


def test_a_services_folder_is_taken_with_its_images_and_labels(tmp_path: Path) -> None:
    folder = tmp_path / "service"
    images, store = ImageStore(folder / "images"), VersionStore(folder / "store")
    store.add({"model.pt": b"weights", "network.json": b"{}"}, DETAILS, None)
    names = [images.add(np.full((4, 4, 3), value, np.uint8), None) for value in (1, 2)]
    images.set_label(names[0], Tag.FINAL, "a", "Dr Zoe")
    training = folder / "trainings" / "0123"
    (training / "run").mkdir(parents=True)
    (training / "outcome.json").write_text("{}")
    (training / "run" / "checkpoint.pt").write_bytes(b"learnt")
    backup([folder], tmp_path / "backup", with_keys=True)
    images.remove(names[1])
    images.close()
    restore(tmp_path / "backup", tmp_path / "restored")
    again = ImageStore(tmp_path / "restored/service/images")
    assert [one.image for one in again.listed()] == sorted(names)
    assert (again.label(names[0], Tag.FINAL)["label"], again.key) == ("a", images.key)
    again.close()
    assert (tmp_path / "restored/service/trainings/0123/run/checkpoint.pt").read_bytes() == b"learnt"
    VersionStore(tmp_path / "restored/service/store").check()


@pytest.mark.parametrize("name", ["versions/audit.jsonl", "versions/versions/0002/model.pt", "versions.key.head"])
@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_a_file_that_is_not_as_it_was_is_refused_by_name(
    name: str, damage: str, store: VersionStore, tmp_path: Path
) -> None:
    backup([store.folder], tmp_path / "backup", with_keys=False)
    file = tmp_path / "backup" / name
    if damage == "changed":
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    else:
        file.unlink()
    with pytest.raises(UserError, match=f"{name} is {'not as it was backed up' if damage == 'changed' else 'missing'}"):
        restore(tmp_path / "backup", tmp_path / "restored")
    assert not (tmp_path / "restored").exists()


def test_a_log_that_was_changed_does_not_come_back_though_all_hashes_were_made_anew(
    store: VersionStore, tmp_path: Path
) -> None:
    backup([store.folder], tmp_path / "backup", with_keys=False)
    log, manifest = tmp_path / "backup/versions/audit.jsonl", tmp_path / "backup" / MANIFEST
    log.write_text(log.read_text().replace('"version": 3', '"version": 2'))
    content = json.loads(manifest.read_text())
    content["files"]["versions/audit.jsonl"] = file_sha256(log)
    manifest.write_text(json.dumps(content))
    with pytest.raises(UserError, match="audit.jsonl was changed: line 3"):
        restore(tmp_path / "backup", tmp_path / "restored")
    assert [path.name for path in tmp_path.iterdir() if "restored" in path.name] == []


def test_a_manifest_leads_nowhere_else(store: VersionStore, tmp_path: Path) -> None:
    backup([store.folder], tmp_path / "backup", with_keys=False)
    manifest = tmp_path / "backup" / MANIFEST
    content = json.loads(manifest.read_text())
    for name in ("../outside", "/etc/passwd", "a/../../b", ".."):
        manifest.write_text(json.dumps({**content, "files": {name: "0" * 64}}))
        with pytest.raises(UserError, match="backup.json is not as it should be"):
            restore(tmp_path / "backup", tmp_path / "restored")


def test_a_changed_store_is_not_backed_up(store: VersionStore, tmp_path: Path) -> None:
    file = store.version(1).folder / "model.pt"
    file.chmod(0o600)
    file.write_bytes(b"other")
    with pytest.raises(UserError, match="0001/model.pt is not as it was added"):
        backup([store.folder], tmp_path / "backup", with_keys=False)
    assert [path.name for path in tmp_path.iterdir() if "backup" in path.name] == []


def test_nothing_is_written_over(store: VersionStore, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(UserError, match="full is not empty: give a folder for the backup"):
        backup([store.folder], tmp_path / "full", with_keys=False)
    backup([store.folder], tmp_path / "backup", with_keys=False)
    with pytest.raises(UserError, match="full is not empty: give a folder for what is restored"):
        restore(tmp_path / "backup", tmp_path / "full")
    with pytest.raises(UserError, match="two of the folders would be versions in the backup"):
        backup([store.folder, store.folder], tmp_path / "twice", with_keys=False)
    with pytest.raises(UserError, match="full is neither a node's queue, a store of versions, "):
        backup([tmp_path / "full"], tmp_path / "nothing", with_keys=False)


def test_what_a_later_release_has_written_is_refused_in_one_line(
    queue: ImageQueue, store: VersionStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup([queue.folder, store.folder], tmp_path / "backup", with_keys=True)
    later = {"BACKUP": lambda: restore(tmp_path / "backup", tmp_path / "restored"), "VERSION": store.versions}
    later["QUEUE"] = lambda: backup([queue.folder], tmp_path / "other", with_keys=False)
    for name, read in later.items():
        with monkeypatch.context() as patch:
            patch.setattr(formats, name, getattr(formats, name) - 1)
            with pytest.raises(
                UserError, match="was written by a later release, in format 1, and this one reads up to 0"
            ):
                read()


def test_a_disk_that_is_full_leaves_nothing(python: Callable[..., Any], tmp_path: Path) -> None:
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000)); "
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "from scripts.commands.app import main; sys.exit(main(sys.argv[1:]))"
    )
    large = VersionStore(tmp_path / "large")
    large.add({"model.pt": bytes(10_000), "network.json": b"{}"}, DETAILS, None)
    done = python(["-c", code, "backup", large.folder, tmp_path / "backup"])
    assert done.returncode == 1
    assert "free some space there and run again" in done.stderr.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir() if "backup" in path.name] == []


def test_a_backup_that_is_cut_off_is_none(tmp_path: Path, put: Put, start_python: Callable[..., Any]) -> None:
    queue = ImageQueue(str(tmp_path / "node"), lambda: "model")
    for number in range(150):
        put(queue, f"1.{number}", os.urandom(20_000))
    queue.close()
    cut, rng = 0, random.Random(0)
    code = (
        f"from pathlib import Path; from scripts.commands.backup import backup; backup([Path({str(queue.folder)!r})], "
    )
    for attempt in range(4):
        target = tmp_path / "backup"
        child = start_python(["-c", f"{code}Path({str(target)!r}), True)"])
        waiting = tmp_path / ".backup.partial"
        while child.is_alive() and not waiting.exists():
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.1))
        child.kill()
        child.join()
        cut += not target.exists()
        if target.exists():  # then it is whole
            restore(target, tmp_path / f"restored{attempt}")
            target.rename(tmp_path / f"whole{attempt}")
    assert cut > 0, "the machine is too fast for this test"
    backup([queue.folder], tmp_path / "backup", with_keys=True)
    restore(tmp_path / "backup", tmp_path / "restored")
    assert contents(tmp_path / "restored/node/images") == contents(queue.folder / "images")
    assert not (tmp_path / ".backup.partial").exists()


def test_a_folder_that_cannot_be_finished_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), whole_folder(tmp_path / "a") as waiting:
        (waiting / "file").touch()
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
