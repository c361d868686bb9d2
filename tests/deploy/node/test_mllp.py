"""HL7 v2 to a real listener: acknowledged, refused, answered with nonsense, away, and sent again by the node."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from hl7apy.mllp import AbstractHandler, MLLPServer
from hl7apy.parser import parse_message

from scripts.deploy.dicom.dicom_result import dicom_bytes
from scripts.deploy.dicom.structured_report import structured_report
from scripts.deploy.node.destinations import Destinations, NotTaken, StoreDestination, Unreachable
from scripts.deploy.node.health import Health
from scripts.deploy.node.mllp import Hl7Destination
from scripts.deploy.node.node import Node
from scripts.deploy.queue import ImageQueue, State
from scripts.imaging.transforms.scans import read_source_image
from scripts.model.decisions.results import ModelIdentity

MODEL = ModelIdentity("skin", "3", "ab" * 32, ("a", "b"))


class Engine:
    """A listener that keeps what comes, and answers with the codes of a list, then with AA."""

    def __init__(self, port: int) -> None:
        self.port, self.messages, self.codes, self.control = port, [], list[str](), ""
        engine = self

        class Handler(AbstractHandler):
            def reply(self) -> str:
                return engine.acknowledge(self.incoming_message)

        self.server = MLLPServer("127.0.0.1", port, {"ORU^R01^ORU_R01": (Handler,)})
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def acknowledge(self, text: str) -> str:
        self.messages.append(text)
        message = parse_message(text)
        assert message.validate()
        code = self.codes.pop(0) if self.codes else "AA"
        control = self.control or message.msh.msh_10.value
        return f"\x0bMSH|^~\\&|RIS|H|NODE||20261121||ACK^R01^ACK|1|P|2.5.1\rMSA|{code}|{control}\r\x1c\r"


@pytest.fixture
def engine(free_port: Callable[[], int]) -> Iterator[Engine]:
    made = Engine(free_port())
    yield made
    made.server.shutdown()
    made.server.server_close()


def destination_to(port: int, seconds: float = 5.0) -> Hl7Destination:
    return Hl7Destination("127.0.0.1", port, "NODE", "RIS", "HOSPITAL", seconds)


@pytest.fixture
def report(scans: Any, tmp_path: Any) -> bytes:
    image = scans.dicom(tmp_path / "image", np.zeros((30, 40), np.uint16), PatientID="4711", PatientName="A^B")
    source = read_source_image(image)
    assert source is not None
    return dicom_bytes(structured_report(MODEL.judge([0.3, 0.7]), source))


def test_a_report_is_told_and_acknowledged(engine: Engine, report: bytes) -> None:
    destination_to(engine.port).send([report])
    (message,) = map(parse_message, engine.messages)
    assert (message.msh.msh_5.value, message.msh.msh_6.value) == ("RIS", "HOSPITAL")


def test_what_is_no_report_is_not_told(engine: Engine, scans: Any, tmp_path: Any) -> None:
    image = scans.make_dicom(np.zeros((4, 4), np.uint8))
    destination_to(engine.port).send([dicom_bytes(image)])
    assert engine.messages == []


@pytest.mark.parametrize("code", ["AE", "AR", "CE", "CR"])
def test_who_refuses_a_message_has_not_taken_it(code: str, engine: Engine, report: bytes) -> None:
    engine.codes = [code]
    with pytest.raises(NotTaken, match=f"HL7 on 127.0.0.1, port .*, answers with {code}"):
        destination_to(engine.port).send([report])


def test_an_acknowledgement_of_another_message_is_none(engine: Engine, report: bytes) -> None:
    engine.control = "another"  # as of an engine that cannot read the message: to send it again for ever helps nobody
    with pytest.raises(NotTaken, match="no acknowledgement of the message"):
        destination_to(engine.port).send([report])


def test_who_is_away_or_silent_is_unreachable(free_port: Callable[[], int], report: bytes) -> None:
    with pytest.raises(Unreachable, match="does not answer"):
        destination_to(free_port()).send([report])
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(Unreachable, match="does not answer"):
        destination_to(silent.getsockname()[1], 0.2).send([report])


def test_a_patient_without_number_is_refused_and_not_quoted(engine: Engine, scans: Any, tmp_path: Any) -> None:
    source = read_source_image(
        scans.dicom(tmp_path / "image", np.zeros((30, 40), np.uint16), PatientID="", PatientName="Secret^Jane")
    )
    assert source is not None
    with pytest.raises(NotTaken, match="needs a Patient ID") as caught:
        destination_to(engine.port).send([dicom_bytes(structured_report(MODEL.judge([0.3, 0.7]), source))])
    assert "Secret" not in str(caught.value) and engine.messages == []


def test_the_node_sends_again_what_was_not_taken_and_only_there(
    engine: Engine, report: bytes, archive: Any, queue: ImageQueue, tmp_path: Any
) -> None:
    engine.codes = ["AE", "AE"]
    file = queue.new_file()
    file.write_bytes(b"image")
    queue.add("1.2", file)
    store = StoreDestination("127.0.0.1", archive.port, "ARCHIVE", "NODE", 5.0)
    health, both = Health("127.0.0.1", 0), [store, destination_to(engine.port)]
    node = Node(queue, nullcontext(), lambda image: [report], both, 1, 5, 0.01, 0.05, 60, health)
    assert isinstance(node.destination, Destinations)

    def watch() -> None:
        end = time.monotonic() + 30
        while not node.queue.counts()[State.SENT] and time.monotonic() < end:
            time.sleep(0.01)
        node.stop()

    watcher = threading.Thread(target=watch)
    watcher.start()
    node.run()
    watcher.join()
    assert [parse_message(text).msh.msh_10.value for text in engine.messages] == [
        parse_message(engine.messages[0]).msh.msh_10.value
    ] * 3
    assert len(archive.stored) == 1
    again = ImageQueue(str(tmp_path / "queue"), lambda: "model")
    assert again.counts()[State.SENT] == 1
    again.close()
