"""FHIR over real HTTP: a transaction that another program can read; who refuses is told apart from who is away."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from fhir.resources.R4B.bundle import Bundle

from scripts.deploy.dicom.dicom_result import dicom_bytes
from scripts.deploy.dicom.structured_report import structured_report
from scripts.deploy.node.destinations import NotTaken, Unreachable
from scripts.deploy.node.fhir import FhirDestination
from scripts.imaging.transforms.scans import read_source_image
from scripts.model.decisions.results import ModelIdentity
from scripts.utils.errors import UserError

MODEL = ModelIdentity("skin", "3", "ab" * 32, ("a", "b"))


class Server:
    """Takes transactions under /fhir, and answers with the statuses of a list, then with 200."""

    def __init__(self) -> None:
        self.bundles: list[Any] = []
        self.headers: list[Any] = []
        self.statuses: list[int] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                status = server.statuses.pop(0) if server.statuses else 200
                if status == 200 and self.path == "/fhir":
                    server.bundles.append(Bundle.model_validate_json(content))
                    server.headers.append(self.headers)
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/fhir"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()


@pytest.fixture
def report(scans: Any, tmp_path: Any) -> bytes:
    source = read_source_image(scans.dicom(tmp_path / "image", np.zeros((30, 40), np.uint16), PatientID="4711"))
    assert source is not None
    return dicom_bytes(structured_report(MODEL.judge([0.3, 0.7]), source))


def test_a_report_is_one_transaction(server: Server, report: bytes) -> None:
    FhirDestination(server.url, {"X-Site": "A"}, 5.0).send([report])
    (bundle,) = server.bundles
    assert bundle.type == "transaction"
    assert server.headers[0]["Content-Type"] == "application/fhir+json" and server.headers[0]["X-Site"] == "A"


@pytest.mark.parametrize(
    ("status", "kind"), [(400, NotTaken), (422, NotTaken), (401, Unreachable), (404, Unreachable), (503, Unreachable)]
)
def test_a_refusal_is_told_apart_from_being_away(status: int, kind: Any, server: Server, report: bytes) -> None:
    server.statuses = [status]
    with pytest.raises(kind, match=f"answers with status {status}"):
        FhirDestination(server.url, {}, 5.0).send([report])
    assert server.bundles == []


def test_who_does_not_answer_is_unreachable(free_port: Callable[[], int], report: bytes) -> None:
    with pytest.raises(Unreachable, match="does not answer"):
        FhirDestination(f"http://127.0.0.1:{free_port()}/fhir", {}, 5.0).send([report])


@pytest.mark.parametrize("url", ["", "server", "ftp://server/fhir"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(UserError, match=r"is no address of a FHIR server: give https://\.\.\. \(key 'fhir_url'\)"):
        FhirDestination(url, {}, 5.0)
