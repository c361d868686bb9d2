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
from scripts.deploy.queue import Entry, ImageQueue, State
from scripts.imaging.decoding.reasons import ImageRefused, Reason
from scripts.utils.errors import UserError

NAME = b"Doe^Jane"
Open = Callable[..., ImageQueue]
Put = Callable[[ImageQueue, str, bytes], bool]


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


def content(entry: Entry) -> bytes:
    return entry.image.read_bytes()


def first(queue: ImageQueue) -> Entry:
    entry = queue.next()
    assert entry is not None
    return entry


def answer(queue: ImageQueue) -> None:
    queue.sent(queue.classified(first(queue), [b"result"]))


def test_images_come_in_the_order_of_their_arrival_and_stay_until_they_are_answered(opened: Open, put: Put) -> None:
    queue = opened()
    for number in (3, 1, 2):
        assert put(queue, f"1.{number}", b"%d" % number)
    found = []
    while entry := queue.next():
        assert queue.next() == entry
        found.append(content(entry))
        answer(queue)
        assert not entry.image.exists()
    assert found == [b"3", b"1", b"2"]


def test_a_restart_changes_nothing(opened: Open, put: Put) -> None:
    put(opened(), "1.1", b"one")
    assert content(first(opened())) == b"one"
    queue = opened()
    queue.classified(first(queue), [b"report", b"picture"])
    found = first(opened())
    assert (found.name, found.state, found.results) == (queue.name("1.1"), State.CLASSIFIED, (b"report", b"picture"))
    queue = opened()
    queue.sent(first(queue))
    queue = opened()
    assert (queue.next(), queue.state("1.1")) == (None, State.SENT)


def test_the_age_of_the_queue_is_that_of_its_oldest_image(opened: Open, put: Put, tmp_path: Path) -> None:
    queue = opened()
    assert queue.waiting_seconds() == 0
    put(queue, "1.1", b"one")
    put(queue, "1.2", b"two")
    with sqlite3.connect(tmp_path / "queue/queue.db") as database:
        for name, moment in (("1.1", "2020-01-01T00:00:00+00:00"), ("1.2", "2999-01-01T00:00:00+00:00")):
            database.execute("UPDATE images SET changed = ? WHERE name = ?", (moment, queue.name(name)))
    assert queue.waiting_seconds() > 365 * 24 * 3600
    answer(queue)
    assert queue.waiting_seconds() == 0, "a clock that was set back makes no negative age"


def test_an_image_that_waits_or_was_answered_is_not_queued_again(opened: Open, put: Put) -> None:
    queue = opened()
    put(queue, "1.1", b"image")
    assert not put(queue, "1.1", b"image")
    assert content(first(queue)) == b"image"
    answer(queue)
    assert not put(queue, "1.1", b"image")
    assert queue.next() is None
    assert queue.refusals() == []


def test_another_file_of_one_uid_is_refused_and_listed_once(opened: Open, put: Put) -> None:
    queue = opened()
    put(queue, "1.1", b"first")
    for _ in range(2):
        with pytest.raises(ImageRefused, match=f"has the SOP Instance UID of {queue.name('1.1')}") as refusal:
            put(queue, "1.1", b"second")
        assert refusal.value.reason is Reason.SAME_INSTANCE
    assert content(first(queue)) == b"first"
    answer(queue)
    with pytest.raises(ImageRefused):
        put(queue, "1.1", b"second")
    with pytest.raises(ImageRefused):
        put(queue, "1.1", b"third")
    listed = queue.refusals()
    assert [reason for _, _, reason in listed] == ["same_instance"] * 2
    assert len({name for _, name, _ in listed} - {queue.name("1.1")}) == 2
    assert (queue.next(), queue.state("1.1")) == (None, State.SENT)


def test_another_file_of_one_uid_is_answered_once_the_first_was_refused_or_the_model_is_new(
    opened: Open, put: Put
) -> None:
    queue = opened()
    put(queue, "1.1", b"first")
    with pytest.raises(ImageRefused):
        put(queue, "1.1", b"second")
    queue.refused(first(queue), "corrupt_pixels")
    assert put(queue, "1.1", b"second")
    assert queue.refusals() == []
    answer(queue)
    queue = opened("newer")
    assert put(queue, "1.1", b"first")
    assert not put(queue, "1.1", b"first")
    with pytest.raises(ImageRefused):
        put(queue, "1.1", b"second")


def test_another_model_answers_again(opened: Open, put: Put) -> None:
    put(opened(), "1.1", b"image")
    answer(opened())
    assert put(opened("newer"), "1.1", b"image")
    assert opened("newer").next() is not None


def test_a_result_is_its_makers_whoever_sends_it(opened: Open, put: Put) -> None:
    queue = opened("older")
    put(queue, "1.1", b"image")
    queue.classified(first(queue), [b"result"])
    queue = opened("newer")
    queue.sent(first(queue))
    assert put(queue, "1.1", b"image")


def test_a_refused_image_is_listed_with_its_code_and_may_come_again(opened: Open, put: Put) -> None:
    queue = opened()
    put(queue, "1.1", b"broken")
    queue.refused(first(queue), "corrupt_pixels")
    assert [row[1:] for row in queue.refusals()] == [(queue.name("1.1"), "corrupt_pixels")]
    assert put(queue, "1.1", b"mended")
    assert queue.refusals() == []
    assert content(first(queue)) == b"mended"


def test_an_ignored_image_is_known_and_not_listed(opened: Open, put: Put) -> None:
    queue = opened()
    put(queue, "1.1", b"own result")
    queue.ignored(first(queue), "own_result")
    assert queue.state("1.1") is State.IGNORED
    assert (queue.refusals(), queue.next(), put(queue, "1.1", b"own result")) == ([], None, False)


def test_a_postponed_result_waits_while_others_go_first_and_keeps_its_place(opened: Open, put: Put) -> None:
    queue = opened()
    for number in range(3):
        put(queue, f"1.{number}", b"%d" % number)
    queue.postpone(queue.classified(first(queue), [b"result"]), 3600)
    assert content(first(queue)) == b"1"
    queue = opened()  # pauses end with the process, tries are counted on
    assert (first(queue).results, first(queue).tries) == ((b"result",), 1)
    names = [queue.name(f"1.{number}") for number in range(3)]
    for passed_over, name in ((names[:1], names[1]), (names[1:2], names[2])):
        entry = queue.next([State.RECEIVED], passed_over)
        assert entry is not None and entry.name == name
    assert queue.next([State.RECEIVED], names) is None


def test_results_that_were_given_up_stay_until_they_are_retried_or_the_image_comes_again(
    opened: Open, put: Put
) -> None:
    queue = opened()
    for number in range(2):
        put(queue, f"1.{number}", b"image")
        queue.failed(queue.classified(first(queue), [b"report", b"capture"]), "status C001")
    assert queue.next() is None
    queue = opened()
    assert [row[1:] for row in queue.failures()] == [(queue.name(f"1.{number}"), "status C001") for number in range(2)]
    assert queue.retry([queue.name("1.0")]) == 1
    assert first(queue).results == (b"report", b"capture")
    queue.sent(first(queue))
    assert put(queue, "1.1", b"image")
    assert (first(queue).state, first(queue).results, content(first(queue))) == (State.RECEIVED, (), b"image")


def test_an_image_that_did_not_come_in_whole_is_listed_and_may_come_again(opened: Open, put: Put) -> None:
    queue = opened()
    put(queue, "1.1", b"image")
    for uid in ("1.1", "1.2"):
        queue.turned_away(uid, Reason.TOO_LARGE)
    assert [row[1:] for row in queue.refusals()] == [(queue.name("1.2"), "too_large")]
    assert queue.state("1.1") is State.RECEIVED
    assert put(queue, "1.2", b"image")


def test_counts_are_of_all_states(opened: Open, put: Put) -> None:
    queue = opened()
    for number in range(4):
        put(queue, f"1.{number}", b"image")
    answer(queue)
    queue.refused(first(queue), "no_pixels")
    queue.classified(first(queue), [b"result"])
    expected = {State.RECEIVED: 1, State.CLASSIFIED: 1, State.SENT: 1, State.REFUSED: 1}
    expected |= {State.FAILED: 0, State.IGNORED: 0}
    assert queue.counts() == expected


def test_names_are_secret_and_stay_the_same(opened: Open) -> None:
    name = opened().name("1.2.3")
    assert name == opened().name("1.2.3") != opened().name("1.2.4")
    (opened().folder / "key").write_bytes(b"another key")
    assert opened().name("1.2.3") != name


@pytest.mark.parametrize("leave", [lambda queue, opened: queue.tidy(), lambda queue, opened: opened()])
def test_nobody_is_named_in_the_folder_once_all_is_answered(leave: Any, opened: Open, put: Put) -> None:
    queue = opened()
    for number in range(20):
        put(queue, f"1.2.840.{number}", NAME + bytes(40_000))
        queue.classified(first(queue), [NAME + bytes(9_000)])
        queue.sent(first(queue))
    leave(queue, opened)
    for path in filter(Path.is_file, queue.folder.rglob("*")):
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


def test_a_full_disk_is_said_and_takes_nothing_away(opened: Open, put: Put) -> None:
    queue = opened()
    put(queue, "1.1", b"image")
    pages = queue._database.execute("PRAGMA page_count").fetchone()[0]
    queue._database.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(UserError, match="cannot write .*queue.db .database or disk is full.: free some space there"):
        queue.classified(first(queue), [bytes(10**6)])
    assert content(first(queue)) == b"image"
    with pytest.raises(UserError, match="disk is full"):
        for number in range(1000):  # until even a name has no room
            put(queue, f"2.{number}", b"image")
    assert len([*queue.folder.rglob("*.dcm")]) == queue.counts()[State.RECEIVED] == number + 1
    assert queue.state(f"2.{number}") is None


def test_what_a_killed_process_left_half_received_is_deleted(opened: Open, put: Put) -> None:
    queue = opened()
    put(queue, "1.1", b"image")
    queue.new_file().write_bytes(NAME)
    assert [path.read_bytes() for path in opened().folder.rglob("*.dcm")] == [b"image"]


# Says which images it has taken; of three images one is left, one classified and one sent.
CHILD = """
import sys
from scripts.deploy.queue import ImageQueue
queue = ImageQueue(sys.argv[1], lambda: "model")
for number in range(int(sys.argv[2]), 10**9):
    file = queue.new_file()
    file.write_bytes(b"%d " % number * 20_000)
    queue.add(f"1.{number}", file)
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
    assert len([*queue.folder.rglob("*.dcm")]) == counts[State.RECEIVED]
    whole = sqlite3.connect(tmp_path / "queue" / "queue.db").execute("PRAGMA integrity_check").fetchone()
    assert whole == ("ok",)
    queue.close()
