"""HL7 v2 by MLLP: a message between a start and an end byte, and its acknowledgement (HL7 transport, release 1)."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence

from scripts.deploy.dicom.reported import ReportedResult, read_reports
from scripts.deploy.messages.hl7 import control_id, oru_message, require_hl7
from scripts.deploy.node.destinations import NotTaken, Unreachable
from scripts.deploy.node.tls import Certificates

_START, _END = b"\x0b", b"\x1c\r"
_SHORTEST = 0.001  # seconds: 0 would wait for nothing at all
_MAX_BYTES = 2**16  # of an acknowledgement
_TAKEN, _REFUSED = ("AA", "CA"), ("AE", "AR", "CE", "CR")


class Hl7Destination:
    """Tells an interface engine what reports say, as ORU^R01; each message is acknowledged, or sent again.

    Args:
        host: of the engine.
        port: of the engine.
        sender: MSH-3, this node.
        receiver: MSH-5, the application that the messages are for.
        facility: MSH-6, where that is.
        seconds: that connecting or an answer may take.
        tls: shown to the engine, and asked of it; ``None``: nothing is encrypted.

    Raises:
        UserError: hl7apy is not installed.
    """

    def __init__(
        self,
        host: str,
        port: int,
        sender: str,
        receiver: str,
        facility: str,
        seconds: float,
        tls: Certificates | None = None,
    ) -> None:
        require_hl7()
        self.host = host
        self.port = port
        self.names = (sender, receiver, facility)
        self.seconds = seconds
        self._tls = None if tls is None else tls.of_client()

    def send(self, results: Sequence[bytes]) -> None:
        """Deliver the reports among DICOM files; see `Destination`."""
        for reported in read_reports(results):
            answer = self._answer(self._message(reported))
            segments = [line.split("|") for line in answer.replace("\n", "\r").split("\r")]
            said = next((segment for segment in segments if segment[0] == "MSA" and len(segment) > 2), ["MSA", "", ""])
            if said[2].strip() != control_id(reported) or said[1] not in (*_TAKEN, *_REFUSED):
                raise NotTaken(f"{self} answers with what is no acknowledgement of the message")
            if said[1] in _REFUSED:
                raise NotTaken(f"{self} answers with {said[1]}")

    def close(self) -> None:
        """Do nothing: each message has a connection of its own."""

    def _message(self, reported: ReportedResult) -> bytes:
        from hl7apy.exceptions import HL7apyException

        if not reported.header.PatientID:
            raise NotTaken("HL7 v2 needs a Patient ID, which the image lacks")
        try:
            return oru_message(reported, *self.names).encode()
        except HL7apyException as error:  # whose text may quote the patient
            raise NotTaken(f"the report cannot be said in HL7 v2 ({type(error).__name__})") from None

    def _answer(self, message: bytes) -> str:
        """Send a message and return what stands in the frame that comes back."""
        received, end = b"", time.monotonic() + self.seconds
        try:
            with socket.create_connection((self.host, self.port), self.seconds) as plain:
                plain.settimeout(self.seconds)
                link = plain if self._tls is None else self._tls.wrap_socket(plain, server_hostname=self.host)
                with link:
                    link.sendall(_START + message + _END)
                    while _END not in received and len(received) < _MAX_BYTES and (more := link.recv(4096)):
                        received += more
                        link.settimeout(max(_SHORTEST, end - time.monotonic()))
        except OSError as error:
            raise Unreachable(f"{self} does not answer ({type(error).__name__})") from None
        if not received:
            raise Unreachable(f"{self} hangs up without an answer")
        return received.partition(_START)[2].partition(_END)[0].decode(errors="replace")

    def __str__(self) -> str:
        return f"HL7 on {self.host}, port {self.port},"
