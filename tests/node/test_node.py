"""The loop: in order, whatever the destination does, and without a word about a patient."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from scripts.commands.model import load_image_classifier
from scripts.decoding.reasons import Reason, refused
from scripts.node.destinations import Destination, NotTaken, StoreDestination, Unreachable
from scripts.node.node import Node
from scripts.node.queue import ImageQueue, State
from scripts.node.receiver import Receiver
from scripts.node.reporter import Reporter

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


def answer(dicom: bytes) -> list[bytes]:
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
    queue: ImageQueue, destination: Destination, done: Callable[[], bool], answer: Any = answer, linger: float = 60
) -> None:
    """Run a node until something has happened."""
    node = Node(queue, nullcontext(), answer, destination, first_pause=0.01, longest_pause=0.05, linger=linger)

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
        queue.add(f"1.{number}", image)


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

    def counting(dicom: bytes) -> list[bytes]:
        asked.append(dicom)
        return [b"result %d" % len(asked)]

    add(queue, b"one")
    run(queue, mailbox, lambda: bool(mailbox.taken), counting)
    assert (asked, mailbox.taken) == ([b"one"], [b"result 1"])


def test_others_go_before_a_result_that_is_not_wanted(reopened: Any) -> None:
    queue, mailbox = reopened(), Mailbox(NotTaken("status C001"))
    add(queue, b"one", b"two", b"three")
    run(queue, mailbox, lambda: len(mailbox.taken) == 3)
    assert mailbox.taken == [b"result of two", b"result of three", b"result of one"]


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


def test_an_answer_that_makes_no_sense_is_waited_out(reopened: Any, caplog: Any) -> None:
    queue, mailbox = reopened(), Mailbox(*[ZeroDivisionError(NAME)] * 3)
    add(queue, b"one", b"two")
    run(queue, mailbox, lambda: len(mailbox.taken) == 2)
    assert mailbox.taken == [b"result of one", b"result of two"]
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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(number: int, reopened: Any, caplog: Any) -> None:
    caplog.set_level("INFO")
    queue, mailbox = reopened(), Mailbox(*[Unreachable("away")] * 10**6)
    add(queue, b"one", b"two")
    node = Node(queue, nullcontext(), answer, mailbox, first_pause=100, longest_pause=100, linger=1)
    before = signal.getsignal(number)
    threading.Timer(0.3, os.kill, (os.getpid(), number)).start()
    start = time.monotonic()
    node.run()
    assert time.monotonic() - start < 50
    assert signal.getsignal(number) == before
    assert "Results of 0 images are sent, 0 images are refused, 2 wait for the next start" in caplog.text
    assert reopened().counts()[State.CLASSIFIED] == 1


def test_nobody_is_named_on_the_way(
    queue: ImageQueue, archive: Any, call: Any, trained_model: Path, scans: Any, tmp_path: Path, caplog: Any, capfd: Any
) -> None:
    caplog.set_level("INFO")
    reporter = Reporter(lambda: (load_image_classifier(trained_model), None), queue.folder / "reading")
    receiver = Receiver(queue, "127.0.0.1", 0, "NODE", [], ["1.2.840.10008.5.1.4.1.1.4"], [], 10, 10**7, 10.0)
    destination = StoreDestination("127.0.0.1", archive.port, "ARCHIVE", "NODE", 10.0)
    who = {"PatientName": f"{NAME}^Jane", "PatientID": IDENTIFIER, "AccessionNumber": ACCESSION}
    images = [scans.make_dicom(np.zeros((40, 48), np.uint8), **who) for _ in range(3)]
    images[0].ImageType = ["DERIVED", "SECONDARY"]  # refused
    images[1].StudyDate = "20260101"
    images[1]["StudyDate"]._value = f"of {NAME}"  # a header that contradicts itself

    def run_to_the_end() -> None:
        node = Node(queue, receiver, reporter, destination, 0.1, 1, 1)
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
    reporter = Reporter(lambda: (load_image_classifier(trained_model), None), queue.folder / "reading")
    dataset = scans.make_dicom(np.zeros((40, 48), np.uint8))
    with BytesIO() as file:
        dataset.save_as(file, enforce_file_format=True)
        queue.add(dataset.SOPInstanceUID, file.getvalue())
    destination = StoreDestination("127.0.0.1", archive.port, "ARCHIVE", "NODE", 10.0)
    run(queue, destination, lambda: bool(archive.stored), reporter)
    assert archive.stored[0].StudyInstanceUID == dataset.StudyInstanceUID
    assert pydicom.uid.UID(archive.stored[0].SOPInstanceUID).is_valid
