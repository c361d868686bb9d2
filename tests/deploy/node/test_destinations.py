"""Delivered means that the other side said so; who is away is told apart from who refuses."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from types import SimpleNamespace
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.uid import EncapsulatedPDFStorage

from scripts.deploy.node.destinations import NotTaken, StoreDestination, Unreachable, WebDestination, _Checkpoint
from scripts.deploy.node.web import make_client
from scripts.utils.errors import UserError

GREY = np.zeros((4, 4), np.uint8)


@pytest.fixture
def result(scans: Any) -> Callable[..., bytes]:
    """Make a DICOM file."""

    def make(**attributes: Any) -> bytes:
        with BytesIO() as file:
            scans.make_dicom(GREY, **attributes).save_as(file, enforce_file_format=True)
            return file.getvalue()

    return make


@pytest.fixture
def store(archive: Any) -> Iterator[StoreDestination]:
    destination = StoreDestination("127.0.0.1", archive.port, "ARCHIVE", "NODE", 5.0)
    yield destination
    destination.close()


def uid(result: bytes) -> str:
    return str(pydicom.dcmread(BytesIO(result)).SOPInstanceUID)


def test_all_files_of_a_result_arrive_in_order(store: StoreDestination, archive: Any, result: Any) -> None:
    files = [result(), result(SOPClassUID=EncapsulatedPDFStorage), result()]
    store.send(files)
    assert [dataset.SOPInstanceUID for dataset in archive.stored] == [uid(file) for file in files]


def test_one_association_serves_results_that_follow_each_other(
    store: StoreDestination, archive: Any, result: Any
) -> None:
    for _ in range(3):
        store.send([result()])
    assert archive.associations == 1
    store.close()
    store.send([result()])
    assert archive.associations == 2


def test_an_association_that_ended_is_opened_again(store: StoreDestination, archive: Any, result: Any) -> None:
    store.send([result()])
    archive.stop()
    with pytest.raises(Unreachable, match="ARCHIVE on 127.0.0.1, port .*, does not answer"):
        for _ in range(2):  # the first may still find the old association
            store.send([result()])
    archive.start()
    store.send([result()])
    assert len(archive.stored) == 2


def test_the_librarys_other_thread_takes_no_answer_once_it_is_said_to_have_stopped() -> None:
    library = SimpleNamespace(_is_paused=False, passed=0, ended=False)
    checkpoint = _Checkpoint(library)  # type: ignore[arg-type]

    def react() -> None:  # as pynetdicom's Association does
        while not library.ended:
            library._is_paused = True
            checkpoint.wait()
            library._is_paused = False
            library.passed += 1

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=react)
    thread.start()
    try:
        for _ in range(2000):
            checkpoint.clear()
            while not library._is_paused:
                pass
            passed = library.passed
            time.sleep(0)
            assert library.passed == passed
            checkpoint.set()
    finally:
        sys.setswitchinterval(before)
        library.ended = True
        checkpoint.set()
        thread.join()


@pytest.mark.parametrize("status", [0xB000, 0xB007])
def test_a_warning_is_a_success(status: int, store: StoreDestination, archive: Any, result: Any) -> None:
    archive.answers = [status]
    store.send([result()])
    assert len(archive.stored) == 1


@pytest.mark.parametrize(("status", "kind"), [(0xA700, Unreachable), (0xA900, NotTaken), (0xC001, NotTaken)])
def test_an_answer_tells_busy_from_unwilling(
    status: int, kind: type[Exception], store: StoreDestination, archive: Any, result: Any
) -> None:
    archive.answers = [status]
    with pytest.raises(kind, match=f"{status:04X}"):
        store.send([result()])
    store.send([result()])
    assert len(archive.stored) == 1


def test_who_does_not_let_the_node_in_is_named(store: StoreDestination, archive: Any, result: Any) -> None:
    archive.stop()
    archive.start(callers=["SOMEBODY"])
    with pytest.raises(Unreachable, match="ARCHIVE .* rejects the association of NODE: allow it there"):
        store.send([result()])


def test_who_takes_no_such_results_is_named(store: StoreDestination, result: Any) -> None:
    with pytest.raises(Unreachable, match="ARCHIVE .* takes no 1.2.3.4"):
        store.send([result(SOPClassUID="1.2.3.4")])


class Server(BaseHTTPRequestHandler):
    """Answers every request alike."""

    def __init__(self, status: int, content: bytes, *rest: Any) -> None:
        self.status, self.content = status, content
        super().__init__(*rest)

    def do_POST(self) -> None:  # noqa: N802
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(self.status)
        self.send_header("Content-Type", "application/dicom+json")
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        self.wfile.write(self.content)

    def log_message(self, *rest: Any) -> None:
        pass


@pytest.fixture
def answering() -> Iterator[Callable[[int, bytes], WebDestination]]:
    """Start a server that gives one answer, and return it as a destination."""
    servers: list[ThreadingHTTPServer] = []

    def start(status: int, content: bytes = b"{}") -> WebDestination:
        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), partial(Server, status, content)))
        threading.Thread(target=servers[0].serve_forever, args=(0.01,), daemon=True).start()
        return WebDestination(make_client(f"http://127.0.0.1:{servers[0].server_port}/dicom-web", {}, 5.0, 10**6))

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, NotTaken), (409, NotTaken), (415, NotTaken), (401, Unreachable), (404, Unreachable), (503, Unreachable)],
)
def test_a_servers_answer_tells_busy_from_unwilling(
    status: int, kind: type[Exception], answering: Any, result: Any
) -> None:
    with pytest.raises(kind, match=f"http://127.0.0.1:.* answers with status {status}"):
        answering(status).send([result()])


def test_a_server_that_refuses_one_file_has_not_taken_the_result(answering: Any, result: Any) -> None:
    failed = b'{"00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [272]}}]}}'
    with pytest.raises(NotTaken, match="refuses a result for the reason 272"):
        answering(202, failed).send([result()])


def test_a_server_that_takes_all_has_it(answering: Any, result: Any) -> None:
    answering(200, b'{"00081199": {"vr": "SQ", "Value": [{}]}}').send([result()])


def test_a_server_that_is_away_is_named(free_port: Any, result: Any) -> None:
    destination = WebDestination(make_client(f"http://127.0.0.1:{free_port()}/dicom-web", {}, 5.0, 10**6))
    with pytest.raises(Unreachable, match="http://127.0.0.1:.* does not answer"):
        destination.send([result()])


@pytest.mark.parametrize("url", ["pacs", "ftp://pacs", "http://"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(UserError, match=rf"'{url}' is no address of a DICOMweb server: .* \(key 'web_url'\)"):
        make_client(url, {}, 5.0, 10**6)
