"""The loop: in order, whatever the destination does, and without a word about a patient."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import requests

from scripts.deploy.inference.loading import load_image_classifier
from scripts.deploy.node.destinations import Destination, NotTaken, StoreDestination, Unreachable
from scripts.deploy.node.health import Health
from scripts.deploy.node.node import Node
from scripts.deploy.node.receiver import Receiver
from scripts.deploy.node.reporter import Reporter
from scripts.deploy.queue import ImageQueue, State
from scripts.imaging.decoding.reasons import Reason, refused
from scripts.utils.errors import UserError

TRIES = 3
NAME, IDENTIFIER, ACCESSION = "Secretname", "PATIENT-4711", "ACCESSION-0815"


class Mailbox:
    """A destination in memory: does what its plan says, then takes everything."""

    def __init__(self, *plan: Exception | None) -> None:
        self.plan = list(plan)
        self.taken: list[bytes] = []
        self.closed = 0

    def send(self, results: Sequence[bytes]) -> None:
        problem = self.plan.pop(0) if self.plan else None
        if problem is not None:
            raise problem
        self.taken += results

    def close(self) -> None:
        self.closed += 1


def answer(image: Path) -> list[bytes]:
    dicom = image.read_bytes()
    if dicom.startswith(b"fault"):
        raise ZeroDivisionError(f"the name of {NAME}")
    if dicom.startswith(b"refused"):
        raise refused("file", Reason(dicom.split()[1].decode()))
    return [b"result of " + dicom]


@pytest.fixture
def reopened(tmp_path: Path) -> Iterator[Callable[[], ImageQueue]]:
    """Open the queue of the test's folder once more: a node closes it."""
    queues: list[ImageQueue] = []

    def reopen() -> ImageQueue:
        queues.append(ImageQueue(str(tmp_path / "queue"), lambda: "model"))
        return queues[-1]

    yield reopen
    for queue in queues:
        queue.close()


def run(
    queue: ImageQueue,
    destination: Destination,
    done: Callable[[], bool],
    answer: Any = answer,
    linger: float = 60,
    readers: int = 1,
    pause: float = 0.01,
) -> None:
    """Run a node until something has happened."""
    node = Node(
        queue, nullcontext(), answer, destination, readers, TRIES, pause, 5 * pause, linger, Health("127.0.0.1", 0)
    )

    def watch() -> None:
        end = time.monotonic() + 30
        while not done() and time.monotonic() < end:
            time.sleep(0.01)
        node.stop()

    watcher = threading.Thread(target=watch)
    watcher.start()
    node.run()
    watcher.join()


def add(queue: ImageQueue, *images: bytes) -> None:
    for number, image in enumerate(images):
        file = queue.new_file()
        file.write_bytes(image)
        queue.add(f"1.{number}", file)


def test_results_are_sent_in_the_order_of_the_images(reopened: Any) -> None:
    queue, mailbox = reopened(), Mailbox()
    add(queue, b"one", b"two", b"three")
    run(queue, mailbox, lambda: len(mailbox.taken) == 3)
    assert mailbox.taken == [b"result of one", b"result of two", b"result of three"]


def test_nothing_overtakes_while_the_destination_is_away(reopened: Any) -> None:
    queue, mailbox = reopened(), Mailbox(None, *[Unreachable("away")] * 5)
    add(queue, b"one", b"two", b"three")
    run(queue, mailbox, lambda: len(mailbox.taken) == 3)
    assert mailbox.taken == [b"result of one", b"result of two", b"result of three"]


def test_an_image_is_classified_once_however_often_its_result_is_sent(reopened: Any) -> None:
    queue, mailbox, asked = reopened(), Mailbox(*[Unreachable("away")] * 4), []

    def counting(image: Path) -> list[bytes]:
        asked.append(image.read_bytes())
        return [b"result %d" % len(asked)]

    add(queue, b"one")
    run(queue, mailbox, lambda: bool(mailbox.taken), counting)
    assert (asked, mailbox.taken) == ([b"one"], [b"result 1"])


def test_others_go_before_a_result_that_is_not_wanted(reopened: Any) -> None:
    queue, mailbox = reopened(), Mailbox(NotTaken("status C001"))
    add(queue, b"one", b"two", b"three")
    run(queue, mailbox, lambda: len(mailbox.taken) == 3, pause=2)
    assert mailbox.taken == [b"result of two", b"result of three", b"result of one"]


def test_an_image_that_takes_long_holds_up_no_other(reopened: Any) -> None:
    queue, mailbox, others_are_sent = reopened(), Mailbox(), threading.Event()

    def slow(image: Path) -> list[bytes]:
        if image.read_bytes() == b"slow":
            assert others_are_sent.wait(20)
        return answer(image)

    def done() -> bool:
        if len(mailbox.taken) == 3:
            others_are_sent.set()
        return len(mailbox.taken) == 4

    add(queue, b"slow", b"one", b"two", b"three")
    run(queue, mailbox, done, slow, readers=2)
    assert mailbox.taken == [b"result of one", b"result of two", b"result of three", b"result of slow"]


class Refusing(Mailbox):
    """Refuses one result, and takes the others."""

    def __init__(self, unwanted: bytes) -> None:
        super().__init__()
        self.unwanted: bytes | None = unwanted
        self.refused = 0

    def send(self, results: Sequence[bytes]) -> None:
        if results[0] == self.unwanted:
            self.refused += 1
            raise NotTaken("ARCHIVE answers with status C001")
        super().send(results)


def test_what_is_refused_for_good_holds_nobody_up_is_listed_and_can_be_sent_again(reopened: Any, caplog: Any) -> None:
    queue, archive = reopened(), Refusing(b"result of one")
    add(queue, b"one", b"two")
    run(queue, archive, lambda: archive.refused == TRIES and len(archive.taken) == 1)
    assert f"Given up the result of {queue.name('1.0')} after {TRIES} tries" in caplog.text
    queue, archive.unwanted = reopened(), None
    assert [row[1:] for row in queue.failures()] == [(queue.name("1.0"), "ARCHIVE answers with status C001")]
    assert queue.counts() == dict.fromkeys(State, 0) | {State.FAILED: 1, State.SENT: 1}
    assert queue.retry() == 1
    run(queue, archive, lambda: len(archive.taken) == 2)
    assert archive.taken == [b"result of two", b"result of one"]


def test_a_result_that_was_not_taken_waits_alone_and_longer_each_time(reopened: Any, health: Health) -> None:
    queue, archive = reopened(), Refusing(b"result of 0")
    add(queue, *(b"%d" % number for number in range(20)))
    node = Node(queue, nullcontext(), answer, archive, 2, 100, 30, 60, 60, health)  # the first pause is half a minute
    end = time.monotonic() + 20
    threading.Thread(target=lambda: (until(lambda: len(archive.taken) == 19, end), node.stop())).start()
    node.run()
    assert time.monotonic() < end
    assert (len(archive.taken), archive.refused) == (19, 1)


def until(happened: Callable[[], bool], end: float) -> None:
    while not happened() and time.monotonic() < end:
        time.sleep(0.01)


def test_images_are_classified_while_the_destination_is_away(reopened: Any, health: Health) -> None:
    queue, mailbox = reopened(), Mailbox(*[Unreachable("ARCHIVE does not answer")] * 10**6)
    add(queue, b"one", b"two", b"three")
    node, said = Node(queue, nullcontext(), answer, mailbox, 2, TRIES, 100, 100, 60, health), []

    def look() -> None:
        until(lambda: node.standing().counts[State.CLASSIFIED] == 3, time.monotonic() + 20)
        said.extend(ask(f"http://127.0.0.1:{health.port}/{path}") for path in ("healthz", "readyz"))
        node.stop()

    threading.Thread(target=look).start()
    node.run()
    (alive, _), (ready, content) = said
    assert (alive, ready) == (200, 503)
    assert (content["status"], content["detail"]) == ("not ready", "ARCHIVE does not answer")
    assert content["images"]["classified"] == 3


def test_a_node_that_works_says_so(reopened: Any, health: Health) -> None:
    queue, mailbox = reopened(), Mailbox(Unreachable("away"))
    add(queue, b"one")
    node, said, figures = Node(queue, nullcontext(), answer, mailbox, 2, TRIES, 0.01, 0.05, 60, health), [], []

    def look() -> None:
        until(lambda: bool(mailbox.taken) and node.standing().trouble is None, time.monotonic() + 20)
        said.append(ask(f"http://127.0.0.1:{health.port}/readyz"))
        figures.append(requests.get(f"http://127.0.0.1:{health.port}/metrics", timeout=10).text)
        node.stop()

    threading.Thread(target=look).start()
    node.run()
    assert said[0][0] == 200 and said[0][1]["images"]["sent"] == 1
    assert 'node_images{state="sent"} 1.0' in figures[0] and "node_waiting_seconds 0.0" in figures[0]


def ask(url: str) -> tuple[int, Any]:
    answer = requests.get(url, timeout=10)
    return answer.status_code, answer.json()


def test_a_refused_image_is_listed_and_the_others_go_on(reopened: Any, caplog: Any) -> None:
    queue, mailbox = reopened(), Mailbox()
    add(queue, b"refused burned_in", b"two")
    run(queue, mailbox, lambda: bool(mailbox.taken))
    queue = reopened()
    assert [row[1:] for row in queue.refusals()] == [(queue.name("1.0"), "burned_in")]
    assert queue.counts()[State.SENT] == 1


def test_an_own_result_is_dropped(reopened: Any) -> None:
    queue, mailbox = reopened(), Mailbox()
    add(queue, b"refused own_result", b"two")
    run(queue, mailbox, lambda: bool(mailbox.taken))
    queue = reopened()
    assert (queue.refusals(), queue.state("1.0")) == ([], State.IGNORED)


def test_a_fault_holds_nothing_up_and_names_nobody(reopened: Any, caplog: Any) -> None:
    queue, mailbox = reopened(), Mailbox()
    add(queue, b"fault", b"two")
    run(queue, mailbox, lambda: bool(mailbox.taken))
    assert "ZeroDivisionError in" in caplog.text
    assert NAME not in caplog.text
    assert [row[2] for row in reopened().refusals()] == ["unreadable"]


def test_an_answer_that_makes_no_sense_holds_up_its_result_alone(reopened: Any, caplog: Any) -> None:
    queue, mailbox = reopened(), Mailbox(ZeroDivisionError(NAME))
    add(queue, b"one", b"two")
    run(queue, mailbox, lambda: len(mailbox.taken) == 2, pause=2)
    assert mailbox.taken == [b"result of two", b"result of one"]
    assert "ZeroDivisionError in" in caplog.text
    assert NAME not in caplog.text


def test_a_full_disk_is_waited_for(reopened: Any, caplog: Any) -> None:
    queue, mailbox = reopened(), Mailbox()
    add(queue, b"one")
    pages = queue._database.execute("PRAGMA page_count").fetchone()[0]
    queue._database.execute(f"PRAGMA max_page_count = {pages}")

    def sent_once_there_is_space() -> bool:
        if "database or disk is full" in caplog.text:
            queue._database.execute("PRAGMA max_page_count = 1000000")
        return bool(mailbox.taken)

    run(queue, mailbox, sent_once_there_is_space, lambda dicom: [bytes(10**6)])
    assert "Next try in 0.01 seconds" in caplog.text
    assert len(mailbox.taken) == 1


def test_the_destination_is_let_go_when_nothing_follows_for_a_while(reopened: Any) -> None:
    queue, mailbox = reopened(), Mailbox()
    add(queue, b"one")
    run(queue, mailbox, lambda: mailbox.closed > 0, linger=0.2)
    assert mailbox.taken == [b"result of one"]


@pytest.mark.parametrize(
    ("numbers", "key"),
    [
        ((0, 3, 1, 2, 1), "readers"),
        ((1, 0, 1, 2, 1), "tries"),
        ((1, 3, 0, 2, 1), "first_pause"),
        ((1, 3, 3, 2, 1), "longest_pause"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(numbers: Any, key: str, reopened: Any, health: Health) -> None:
    with pytest.raises(UserError, match=key):
        Node(reopened(), nullcontext(), answer, Mailbox(), *numbers, health)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(number: int, reopened: Any, health: Health, caplog: Any) -> None:
    caplog.set_level("INFO")
    queue, mailbox = reopened(), Mailbox(*[Unreachable("away")] * 10**6)
    add(queue, b"one", b"two")
    node = Node(queue, nullcontext(), answer, mailbox, 2, TRIES, 100, 100, 1, health)
    before = signal.getsignal(number)
    threading.Timer(0.3, os.kill, (os.getpid(), number)).start()
    start = time.monotonic()
    node.run()
    assert time.monotonic() - start < 50
    assert signal.getsignal(number) == before
    assert "0 images are sent, 0 images are refused, 0 results are given up, 2 wait for the next start" in caplog.text
    assert reopened().counts()[State.CLASSIFIED] == 2


def test_nobody_is_named_on_the_way(
    queue: ImageQueue,
    archive: Any,
    call: Any,
    trained_model: Path,
    scans: Any,
    make_limits: Any,
    health: Health,
    caplog: Any,
    capfd: Any,
) -> None:
    caplog.set_level("INFO")
    reporter = Reporter(lambda: (load_image_classifier(trained_model), None))
    receiver = Receiver(queue, "127.0.0.1", 0, "NODE", [], ["1.2.840.10008.5.1.4.1.1.4"], [], make_limits())
    destination = StoreDestination("127.0.0.1", archive.port, "ARCHIVE", "NODE", 10.0)
    who = {"PatientName": f"{NAME}^Jane", "PatientID": IDENTIFIER, "AccessionNumber": ACCESSION}
    images = [scans.make_dicom(np.zeros((40, 48), np.uint8), **who) for _ in range(3)]
    images[0].ImageType = ["DERIVED", "SECONDARY"]  # refused
    images[1].StudyDate = "20260101"
    images[1]["StudyDate"]._value = f"of {NAME}"  # a header that contradicts itself

    def run_to_the_end() -> None:
        node = Node(queue, receiver, reporter, destination, 2, TRIES, 0.1, 1, 1, health)
        threading.Thread(target=send, args=(node,)).start()
        node.run()

    def send(node: Node) -> None:
        end = time.monotonic() + 30
        while receiver.port == 0 and time.monotonic() < end:
            time.sleep(0.01)
        association = call(receiver.port, images)
        statuses = [association.send_c_store(image).Status for image in images]
        association.release()
        while len(archive.stored) < 2 and time.monotonic() < end:
            time.sleep(0.01)
        node.stop()
        assert statuses == [0, 0, 0]

    run_to_the_end()
    assert {str(report.PatientName) for report in archive.stored} == {f"{NAME}^Jane"}
    printed = capfd.readouterr()
    said = printed.out + printed.err + caplog.text
    assert said.count("Received") >= 3 and said.count("Sent the result") >= 2
    words = [NAME, IDENTIFIER, ACCESSION, *(image.SOPInstanceUID for image in images)]
    assert [word for word in words if word in said] == []
    files = [path for path in queue.folder.rglob("*") if path.is_file()]
    assert [word for word in words for path in files if word.encode() in path.read_bytes()] == []


def test_reports_come_with_the_study_of_their_image(
    queue: ImageQueue, archive: Any, trained_model: Path, scans: Any
) -> None:
    reporter = Reporter(lambda: (load_image_classifier(trained_model), None))
    dataset = scans.make_dicom(np.zeros((40, 48), np.uint8))
    file = queue.new_file()
    dataset.save_as(file, enforce_file_format=True)
    queue.add(dataset.SOPInstanceUID, file)
    destination = StoreDestination("127.0.0.1", archive.port, "ARCHIVE", "NODE", 10.0)
    run(queue, destination, lambda: bool(archive.stored), reporter)
    assert archive.stored[0].StudyInstanceUID == dataset.StudyInstanceUID
    assert pydicom.uid.UID(archive.stored[0].SOPInstanceUID).is_valid
