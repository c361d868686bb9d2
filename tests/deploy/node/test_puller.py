"""New images of a real archive are fetched once, and reports never."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from datetime import date, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage, JPEG2000Lossless, MRImageStorage, RLELossless

from scripts.deploy.node.destinations import WebDestination
from scripts.deploy.node.puller import Puller
from scripts.deploy.node.web import make_client
from scripts.deploy.queue import ImageQueue, State
from scripts.imaging.decoding.dicom import OWN_MANUFACTURER

GREY = np.arange(40 * 48, dtype=np.uint8).reshape(40, 48)
SETTINGS: dict[str, Any] = {
    "filters": {},
    "days": None,
    "sop_classes": ["MRImageStorage"],
    "page": 100,
    "interval": 0.05,
}


@pytest.fixture
def fill(make_orthanc: Callable[..., Any], scans: Any) -> Callable[..., tuple[Any, list[Dataset]]]:
    """Make an archive that holds images, one for each set of attributes."""

    def make(*attributes: dict[str, Any]) -> tuple[Any, list[Dataset]]:
        orthanc = make_orthanc()
        images = [scans.make_dicom(GREY, **one) for one in attributes]
        put(orthanc, images)
        return orthanc, images

    return make


def put(orthanc: Any, images: list[Dataset]) -> None:
    for image in images:
        with BytesIO() as file:
            image.save_as(file, enforce_file_format=True)
            orthanc.ask("/instances", file.getvalue())


def puller(queue: ImageQueue, orthanc: Any, **settings: Any) -> Puller:
    return Puller(queue, make_client(orthanc.web_url, {}, 10.0, 10**6), **{**SETTINGS, **settings})


def queued(queue: ImageQueue) -> list[Dataset]:
    """Take what waits out of the queue."""
    found = []
    while entry := queue.next():
        found.append(pydicom.dcmread(entry.image))
        queue.sent(entry)
    return found


def uids(images: list[Dataset]) -> list[str]:
    return sorted(image.SOPInstanceUID for image in images)


def test_new_images_are_fetched_once_in_the_syntax_they_are_stored_in(fill: Any, queue: ImageQueue, scans: Any) -> None:
    orthanc, images = fill({}, {"syntax": RLELossless}, {"syntax": JPEG2000Lossless})
    fetching = puller(queue, orthanc)
    fetching.pull()
    found = {dataset.SOPInstanceUID: dataset for dataset in queued(queue)}
    for image in images:
        same = found.pop(image.SOPInstanceUID)
        assert same.file_meta.TransferSyntaxUID == image.file_meta.TransferSyntaxUID
        assert same.PixelData == image.PixelData
    fetching.pull()
    assert queue.next() is None
    late = scans.make_dicom(GREY)
    put(orthanc, [late])
    fetching.pull()
    assert uids(queued(queue)) == uids([late])


def test_only_listed_classes_are_fetched(fill: Any, queue: ImageQueue) -> None:
    orthanc, images = fill({}, {"SOPClassUID": Comprehensive3DSRStorage, "Modality": "SR"})
    puller(queue, orthanc).pull()
    assert [image.SOPClassUID for image in queued(queue)] == [MRImageStorage]


def test_own_pictures_are_left_where_they_are(fill: Any, queue: ImageQueue) -> None:
    orthanc, images = fill({}, {"Manufacturer": OWN_MANUFACTURER})
    fetching, asked = puller(queue, orthanc), []
    retrieve = fetching.client.retrieve_instance
    fetching.client.retrieve_instance = lambda *named: (asked.append(named[-1]), retrieve(*named))[1]
    fetching.pull()
    assert asked == uids(queued(queue)) == uids(images[:1])


def test_what_is_too_long_is_refused_by_name_and_not_asked_for_again(
    fill: Any, queue: ImageQueue, scans: Any, caplog: pytest.LogCaptureFixture
) -> None:
    orthanc, images = fill({})
    large = scans.make_dicom(np.zeros((1200, 1200), np.uint8))
    put(orthanc, [large])
    fetching = puller(queue, orthanc)
    for _ in range(2):
        fetching.pull()
    name = queue.name(large.SOPInstanceUID)
    assert [row[1:] for row in queue.refusals()] == [(name, "too_large")]
    assert caplog.text.count(f"Refused {name}, too_large: it has more than 1000000 bytes") == 1
    assert uids(queued(queue)) == uids(images)


def test_pages_are_joined(fill: Any, queue: ImageQueue) -> None:
    orthanc, images = fill(*[{}] * 5)
    puller(queue, orthanc, page=2).pull()
    assert uids(queued(queue)) == uids(images)


def test_filters_and_days_narrow_the_search(fill: Any, queue: ImageQueue) -> None:
    today, before = (f"{date.today() - timedelta(days):%Y%m%d}" for days in (0, 3))
    orthanc, images = fill(
        {"StudyDate": today, "Modality": "MR"},
        {"StudyDate": today, "Modality": "CR"},
        {"StudyDate": before, "Modality": "MR"},
    )
    puller(queue, orthanc, filters={"Modality": "MR"}, days=1).pull()
    assert uids(queued(queue)) == uids(images[:1])
    puller(queue, orthanc, filters={"Modality": "MR"}, days=4).pull()
    assert uids(queued(queue)) == uids(images[2:])


class Forgetful(BaseHTTPRequestHandler):
    """A server that finds two images: one is gone, of the other it hands out no DICOM file."""

    def do_GET(self) -> None:  # noqa: N802
        if "?" in self.path:
            found = [{"00080018": {"Value": [f"1.{last}"]}, **FOUND} for last in (1, 2)]
            self.answer(200, "application/dicom+json", json.dumps(found).encode())
        elif self.path.endswith("/1.1"):
            self.answer(404, "text/plain", b"gone")
        else:
            self.answer(200, 'multipart/related; type="application/dicom"; boundary=x', b"--x\r\n\r\nnone\r\n--x--\r\n")

    def answer(self, status: int, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *rest: Any) -> None:
        pass


FOUND = {"00080016": {"Value": [MRImageStorage]}, "0020000D": {"Value": ["1.8"]}, "0020000E": {"Value": ["1.9"]}}


def test_what_the_server_does_not_hand_out_is_asked_for_again(queue: ImageQueue, caplog: Any) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Forgetful) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        client = make_client(f"http://127.0.0.1:{server.server_port}/dicom-web", {}, 10.0, 10**6)
        Puller(queue, client, **SETTINGS).pull()
        server.shutdown()
    assert f"Not fetched, {queue.name('1.1')}: the server answers with 404." in caplog.text
    assert f"Not fetched, {queue.name('1.2')}: the server answers with no DICOM file." in caplog.text
    assert (queue.state("1.1"), queue.state("1.2")) == (None, None)


def test_a_server_that_is_away_is_asked_again(fill: Any, queue: ImageQueue, caplog: Any) -> None:
    orthanc, images = fill({})
    orthanc.stop()
    with puller(queue, orthanc):
        until(lambda: "cannot be searched (ConnectionError)" in caplog.text)
        orthanc.start()
        until(lambda: queue.counts()[State.RECEIVED] == 1)


def test_results_are_stored_in_the_archive_and_again_without_harm(fill: Any, scans: Any) -> None:
    orthanc, images = fill({})
    report = scans.make_dicom(GREY, StudyInstanceUID=images[0].StudyInstanceUID)
    with BytesIO() as file:
        report.save_as(file, enforce_file_format=True)
        content = file.getvalue()
    destination = WebDestination(make_client(orthanc.web_url, {}, 10.0, 10**6))
    for _ in range(2):
        destination.send([content])
    assert uids(orthanc.find(StudyInstanceUID=images[0].StudyInstanceUID)) == uids([images[0], report])


def until(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.02)
