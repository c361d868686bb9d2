"""What is queued survives; each image is answered once."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts import bundle_root
from scripts.errors import UserError
from scripts.node.queue import Entry, ImageQueue, State

NAME = b"Doe^Jane"
Open = Callable[..., ImageQueue]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """Open the queue of the test's folder, as after a restart where it is open already."""
    queues: list[ImageQueue] = []

    def open_queue(model: str = "model") -> ImageQueue:
        if queues:
            queues.pop().close()
        queues.append(ImageQueue(str(tmp_path / "queue"), lambda: model))
        return queues[0]

    yield open_queue
    queues.pop().close()


def first(queue: ImageQueue) -> Entry:
    entry = queue.next()
    assert entry is not None
    return entry


def answer(queue: ImageQueue) -> None:
    queue.sent(queue.classified(first(queue), [b"result"]))


def test_images_come_in_the_order_of_their_arrival_and_stay_until_they_are_answered(opened: Open) -> None:
    queue = opened()
    for number in (3, 1, 2):
        assert queue.add(f"1.{number}", b"%d" % number)
    found = []
    while entry := queue.next():
        assert queue.next() == entry
        found.append(entry.files)
        answer(queue)
    assert found == [(b"3",), (b"1",), (b"2",)]


def test_a_restart_changes_nothing(opened: Open) -> None:
    opened().add("1.1", b"one")
    assert first(opened()).files == (b"one",)
    queue = opened()
    queue.classified(first(queue), [b"report", b"picture"])
    assert first(opened()) == Entry(queue.name("1.1"), State.CLASSIFIED, (b"report", b"picture"))
    queue = opened()
    queue.sent(first(queue))
    queue = opened()
    assert (queue.next(), queue.state("1.1")) == (None, State.SENT)


def test_an_image_that_waits_or_was_answered_is_not_queued_again(opened: Open) -> None:
    queue = opened()
    queue.add("1.1", b"first")
    assert not queue.add("1.1", b"second")
    assert first(queue).files == (b"first",)
    answer(queue)
    assert not queue.add("1.1", b"third")
    assert queue.next() is None


def test_another_model_answers_again(opened: Open) -> None:
    opened().add("1.1", b"image")
    answer(opened())
    assert opened("newer").add("1.1", b"image")
    assert opened("newer").next() is not None


def test_a_result_is_its_makers_whoever_sends_it(opened: Open) -> None:
    queue = opened("older")
    queue.add("1.1", b"image")
    queue.classified(first(queue), [b"result"])
    queue = opened("newer")
    queue.sent(first(queue))
    assert queue.add("1.1", b"image")


def test_a_refused_image_is_listed_with_its_code_and_may_come_again(opened: Open) -> None:
    queue = opened()
    queue.add("1.1", b"broken")
    queue.refused(first(queue), "corrupt_pixels")
    assert [row[1:] for row in queue.refusals()] == [(queue.name("1.1"), "corrupt_pixels")]
    assert queue.add("1.1", b"mended")
    assert queue.refusals() == []
    assert first(queue).files == (b"mended",)


def test_an_ignored_image_is_known_and_not_listed(opened: Open) -> None:
    queue = opened()
    queue.add("1.1", b"own result")
    queue.ignored(first(queue), "own_result")
    assert queue.state("1.1") is State.IGNORED
    assert (queue.refusals(), queue.next(), queue.add("1.1", b"own result")) == ([], None, False)


def test_a_postponed_image_comes_last(opened: Open) -> None:
    queue = opened()
    for number in range(3):
        queue.add(f"1.{number}", b"%d" % number)
    queue.postpone(first(queue))
    found = []
    while entry := queue.next():
        found.append(entry.files[0])
        answer(queue)
    assert found == [b"1", b"2", b"0"]


def test_counts_are_of_all_states(opened: Open) -> None:
    queue = opened()
    for number in range(4):
        queue.add(f"1.{number}", b"image")
    answer(queue)
    queue.refused(first(queue), "no_pixels")
    queue.classified(first(queue), [b"result"])
    expected = {State.RECEIVED: 1, State.CLASSIFIED: 1, State.SENT: 1, State.REFUSED: 1, State.IGNORED: 0}
    assert queue.counts() == expected


def test_names_are_secret_and_stay_the_same(opened: Open) -> None:
    name = opened().name("1.2.3")
    assert name == opened().name("1.2.3") != opened().name("1.2.4")
    (opened().folder / "key").write_bytes(b"another key")
    assert opened().name("1.2.3") != name


@pytest.mark.parametrize("leave", [lambda queue, opened: queue.tidy(), lambda queue, opened: opened()])
def test_nobody_is_named_in_the_folder_once_all_is_answered(leave: Any, opened: Open) -> None:
    queue = opened()
    for number in range(20):
        queue.add(f"1.2.840.{number}", NAME + bytes(40_000))
        queue.classified(first(queue), [NAME + bytes(9_000)])
        queue.sent(first(queue))
    leave(queue, opened)
    for path in queue.folder.iterdir():
        assert NAME not in path.read_bytes()
        assert b"1.2.840" not in path.read_bytes()
    assert stat.S_IMODE(queue.folder.stat().st_mode) == 0o700


def test_a_second_process_is_refused(opened: Open) -> None:
    folder = opened().folder
    with pytest.raises(UserError, match="another node uses .*: stop it, or give this one a folder of its own"):
        ImageQueue(str(folder), lambda: "model")


def test_a_broken_file_is_named(opened: Open, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "queue.db").write_bytes(b"nonsense" * 1000)
    opened()
    with pytest.raises(UserError, match=r"queue\.db cannot be used as a queue \(file is not a database\)"):
        ImageQueue(str(tmp_path / "broken"), lambda: "model")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UserError, match="cannot write .*file/queue: Not a directory"):
        ImageQueue(str(tmp_path / "file" / "queue"), lambda: "model")


def test_a_full_disk_is_said_and_takes_nothing_away(opened: Open) -> None:
    queue = opened()
    queue.add("1.1", b"image")
    pages = queue._database.execute("PRAGMA page_count").fetchone()[0]
    queue._database.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(UserError, match="cannot write .*queue.db .database or disk is full.: free some space there"):
        queue.add("1.2", bytes(10**6))
    assert first(queue).files == (b"image",)
    assert queue.state("1.2") is None


# Says which images it has taken; of three images one is left, one classified and one sent.
CHILD = """
import sys
from scripts.node.queue import ImageQueue
queue = ImageQueue(sys.argv[1], lambda: "model")
for number in range(int(sys.argv[2]), 10**9):
    queue.add(f"1.{number}", b"%d " % number * 20_000)
    print(number, flush=True)
    if number % 3:
        entry = queue.next()
        if entry.state == "received":
            entry = queue.classified(entry, [b"result"])
        if number % 3 == 2:
            queue.sent(entry)
"""


def test_killed_at_any_moment_nothing_is_lost(tmp_path: Path) -> None:
    taken, folder = 0, str(tmp_path / "queue")
    environment = {**os.environ, "PYTHONPATH": bundle_root()}
    for kill in range(6):
        command = [sys.executable, "-c", CHILD, folder, str(taken)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert child.stdout is not None
        for _ in range(1 + 4 * kill % 7):
            taken = int(child.stdout.readline()) + 1
        child.send_signal(signal.SIGKILL)
        taken = max([taken, *(int(line) + 1 for line in child.stdout.read().splitlines() if line)])
        child.wait()
        child.stdout.close()
    queue = ImageQueue(folder, lambda: "model")
    counts = queue.counts()
    assert taken <= sum(counts.values()) <= taken + 1  # the last may be in the queue before it was said
    assert all(queue.state(f"1.{number}") for number in range(taken))
    whole = sqlite3.connect(tmp_path / "queue" / "queue.db").execute("PRAGMA integrity_check").fetchone()
    assert whole == ("ok",)
    queue.close()
