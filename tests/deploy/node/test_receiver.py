"""Who may send what, and that success means that it is on disk."""

from __future__ import annotations

import json
import logging
import resource
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    Comprehensive3DSRStorage,
    CTImageStorage,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
    RTPlanStorage,
)
from pynetdicom import evt
from pynetdicom.dsutils import encode
from pynetdicom.pdu_primitives import P_DATA

from scripts.deploy.logs import JsonFormatter
from scripts.deploy.node.receiver import Receiver
from scripts.deploy.node.server import AssociationLimits
from scripts.deploy.queue import ImageQueue, State
from scripts.utils.errors import UserError

GREY = np.arange(40 * 48, dtype=np.uint8).reshape(40, 48)
SETTINGS: dict[str, Any] = {
    "host": "127.0.0.1",
    "port": 0,
    "ae_title": "NODE",
    "callers": [],
    "sop_classes": ["CTImageStorage", "1.2.840.10008.5.1.4.1.1.4"],
    "transfer_syntaxes": [],
}
LIMITS = {field.name for field in fields(AssociationLimits)}
Open = Callable[..., int]


@pytest.fixture
def listening(queue: ImageQueue, make_limits: Callable[..., AssociationLimits]) -> Iterator[Open]:
    """Start a receiver and return its port."""
    with ExitStack() as stack:

        def start(**settings: Any) -> int:
            limits = make_limits(**{name: settings.pop(name) for name in LIMITS & settings.keys()})
            return stack.enter_context(Receiver(queue, limits=limits, **{**SETTINGS, **settings})).port

        yield start


def test_verification_is_answered(listening: Open, call: Any) -> None:
    association = call(listening())
    assert association.send_c_echo().Status == 0
    association.release()


def test_what_is_stored_is_in_the_queue_as_it_came(listening: Open, call: Any, scans: Any, queue: ImageQueue) -> None:
    syntaxes = (ExplicitVRLittleEndian, JPEGLSLossless, JPEG2000Lossless, RLELossless)
    datasets = [scans.make_dicom(GREY, syntax) for syntax in syntaxes]
    association = call(listening(), datasets)
    for dataset in datasets:
        assert association.send_c_store(dataset).Status == 0
        entry = queue.next()
        assert entry is not None and entry.name == queue.name(dataset.SOPInstanceUID)
        found = pydicom.dcmread(entry.image)
        assert found.file_meta.TransferSyntaxUID == dataset.file_meta.TransferSyntaxUID
        assert found.PixelData == dataset.PixelData
        queue.sent(entry)
    association.release()


def test_the_same_image_twice_is_taken_once(listening: Open, call: Any, scans: Any, queue: ImageQueue) -> None:
    dataset = scans.make_dicom(GREY)
    association = call(listening(), [dataset])
    assert [association.send_c_store(dataset).Status for _ in range(2)] == [0, 0]
    assert queue.counts()[State.RECEIVED] == 1
    association.release()


def test_another_image_of_one_uid_is_answered_as_a_duplicate_and_named(
    listening: Open, call: Any, scans: Any, queue: ImageQueue, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = (scans.make_dicom(GREY // divisor, SOPInstanceUID="1.2.3") for divisor in (1, 2))
    association = call(listening(), [one])
    assert [association.send_c_store(dataset).Status for dataset in (one, two, one)] == [0, 0x0111, 0]
    association.release()
    ((_, name, reason),) = queue.refusals()
    assert reason == "same_instance"
    assert f"Refused same_instance from CALLER: {name} has the SOP Instance UID of {queue.name('1.2.3')}" in caplog.text
    assert queue.counts()[State.RECEIVED] == 1


def test_lines_of_one_association_have_one_id(
    listening: Open, call: Any, scans: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.handler.setFormatter(JsonFormatter())
    port, images = listening(), [scans.make_dicom(GREY, PatientName="Doe^Jane") for _ in range(3)]
    with caplog.at_level(logging.INFO, "scripts"):
        for sent in (images[:2], images[2:]):
            association = call(port, sent)
            assert [association.send_c_store(image).Status for image in sent] == [0] * len(sent)
            association.release()
    found = [json.loads(line) for line in caplog.text.splitlines() if '"Received ' in line]
    first, second, third = (line["request"] for line in found)
    assert first == second != third
    assert "Doe" not in caplog.text


def test_reports_are_taken_and_dropped(listening: Open, call: Any, scans: Any, queue: ImageQueue) -> None:
    report = scans.make_dicom(GREY, SOPClassUID=Comprehensive3DSRStorage)
    association = call(listening(), [report])
    assert association.send_c_store(report).Status == 0
    assert queue.state(report.SOPInstanceUID) is None
    association.release()


def test_only_listed_classes_and_syntaxes_are_negotiated(listening: Open, call: Any, scans: Any) -> None:
    port = listening(transfer_syntaxes=["ExplicitVRLittleEndian"])
    plain = scans.make_dicom(GREY, SOPClassUID=CTImageStorage)
    association = call(
        port, [plain, scans.make_dicom(GREY, RLELossless), scans.make_dicom(GREY, SOPClassUID=RTPlanStorage)]
    )
    accepted = {(context.abstract_syntax, *context.transfer_syntax) for context in association.accepted_contexts}
    assert (CTImageStorage, ExplicitVRLittleEndian) in accepted
    assert len(accepted) == 2  # and verification
    association.release()


TITLES = [({"calling": "CT1"}, True), ({"calling": "CT3"}, False), ({"calling": "CT1", "called": "OTHER"}, False)]


@pytest.mark.parametrize("callers", [["CT1", "CT2"], "CT1"], ids=str)
def test_titles_decide_who_may_call(callers: Any, listening: Open, call: Any, caplog: pytest.LogCaptureFixture) -> None:
    port = listening(callers=callers)
    for titles, accepted in TITLES:
        caplog.clear()
        association = call(port, **titles)
        assert association.is_established is accepted
        assert association.is_rejected is not accepted
        assert (f"Rejected '{titles['calling']}', who called" in caplog.text) is not accepted
        association.release()


def test_one_association_too_many_is_rejected(listening: Open, call: Any) -> None:
    port = listening(associations=2)
    first, second = call(port), call(port)
    assert first.is_established and second.is_established
    assert call(port).is_rejected
    first.release()
    second.release()


def test_too_long_an_object_ends_its_association_before_all_of_it_has_come(
    listening: Open, call: Any, scans: Any, queue: ImageQueue, caplog: pytest.LogCaptureFixture
) -> None:
    port = listening(max_bytes=100_000)
    large = scans.make_dicom(np.zeros((2000, 2000), np.uint8))
    association = call(port, [large])
    assert "Status" not in association.send_c_store(large)
    name = queue.name(large.SOPInstanceUID)
    assert f"Refused {name} from CALLER, too_large: it has more than 100000 bytes" in caplog.text
    assert [row[1:] for row in queue.refusals()] == [(name, "too_large")]
    assert files_of(queue) == []
    small = scans.make_dicom(GREY)
    association = call(port, [small])
    assert association.send_c_store(small).Status == 0
    association.release()


@pytest.mark.parametrize("room", [100_000, 10])
def test_what_cannot_be_written_is_not_taken(
    room: int, listening: Open, call: Any, scans: Any, queue: ImageQueue, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = scans.make_dicom(np.zeros((500, 500), np.uint8))
    association = call(listening(), [dataset])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))  # as a disk that is full
    try:
        assert association.send_c_store(dataset).Status == 0xA700
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "cannot write" in caplog.text and "free some space there" in caplog.text
    assert files_of(queue) == []
    assert association.send_c_store(dataset).Status == 0
    association.release()


def files_of(queue: ImageQueue) -> list[Path]:
    return [*queue.folder.rglob("*.dcm")]


def test_of_what_is_cut_short_nothing_stays(listening: Open, call: Any, scans: Any, queue: ImageQueue) -> None:
    dataset = scans.make_dicom(np.zeros((1000, 1000), np.uint8))
    association = call(listening(), [dataset])
    line, sent = association.dul.socket.socket, []

    def cut(event: evt.Event) -> None:
        sent.append(event.data)
        if len(sent) == 3:
            assert until(lambda: files_of(queue))
            line.shutdown(socket.SHUT_RDWR)

    association.bind(evt.EVT_DATA_SENT, cut)
    association.send_c_store(dataset)
    assert len(sent) >= 3 and until(lambda: not files_of(queue))
    assert queue.counts() == dict.fromkeys(State, 0)


def test_a_fragment_of_no_bytes_leaves_no_file(
    listening: Open, call: Any, scans: Any, queue: ImageQueue, caplog: pytest.LogCaptureFixture
) -> None:
    association = call(listening(), [scans.make_dicom(GREY)])
    command, length = Dataset(), Dataset()
    command.AffectedSOPClassUID, command.AffectedSOPInstanceUID = CTImageStorage, "1.2.3"
    command.CommandField, command.MessageID, command.Priority, command.CommandDataSetType = 1, 1, 0, 1
    body = encode(command, True, True)
    assert body is not None
    length.CommandGroupLength = len(body)
    part, context = P_DATA(), association.accepted_contexts[0].context_id
    whole = (encode(length, True, True) or b"") + body
    part.presentation_data_value_list = [[context, b"\x03" + whole], [context, b"\x02"]]
    association.dul.send_pdu(part)
    assert until(lambda: "it comes without a data set" in caplog.text)
    association.abort()
    assert files_of(queue) == []


def until(happened: Callable[[], Any]) -> bool:
    end = time.monotonic() + 10
    while not happened() and time.monotonic() < end:
        time.sleep(0.01)
    return bool(happened())


def test_noise_on_the_port_ends_nothing(listening: Open, call: Any) -> None:
    port = listening(seconds=1.0)
    rng = np.random.default_rng(0)
    for length in (1, 6, 100, 5000):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(bytes([1, 0, 0, 0, 19, 136]) + rng.bytes(length))
    association = call(port)
    assert association.send_c_echo().Status == 0
    association.release()


def test_a_port_in_use_is_named(listening: Open, queue: ImageQueue) -> None:
    port = listening()
    with pytest.raises(UserError, match=rf"port {port} of 127.0.0.1 is in use: .* \(key 'port'\)"):
        listening(port=port)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"host": "0.0.0.0"}, r"anybody could send to 0\.0\.0\.0: name the AE titles that may \(key 'callers'\)"),
        ({"host": "pacs.example", "callers": []}, r"anybody could send to pacs\.example"),
        ({"max_bytes": 0}, r"max_bytes is 0: give a number above 0 \(key 'limits#max_bytes'\)"),
        ({"sop_classes": ["CatScan"]}, "unknown UID 'CatScan': give a name such as CTImageStorage"),
        ({"transfer_syntaxes": ["1..2"]}, "unknown UID '1..2'"),
        ({"ae_title": "LONGER THAN SIXTEEN"}, "'LONGER THAN SIXTEEN' is no AE title"),
        ({"host": "203.0.113.1", "callers": ["CT1"]}, "cannot listen on 203.0.113.1, port 0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any], message: str, listening: Open) -> None:
    with pytest.raises(UserError, match=message):
        listening(**settings)
