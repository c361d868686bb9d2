"""Where results are sent: an application by C-STORE (DICOM PS3.4 B), a server by STOW-RS (PS3.18 10.5), or several."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Sequence
from io import BytesIO
from typing import Protocol

import pydicom
from dicomweb_client import DICOMwebClient
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.association import Association

from scripts.deploy.node.entity import make_entity
from scripts.deploy.node.tls import Certificates
from scripts.utils.dicomweb import http_status

SENT_SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
"""In which results are offered by C-STORE."""
# HTTP answers that say nothing of what was sent: not allowed in, too slow, too many
_LATER = (401, 403, 404, 407, 408, 429)


class Unreachable(Exception):
    """The destination is away, busy or not set up for results: it is tried again, and nothing overtakes."""


class NotTaken(Exception):
    """The destination is there and does not want this result: others go on, and it is tried again a few times."""


class Destination(Protocol):
    """What results are sent to."""

    def send(self, results: Sequence[bytes]) -> None:
        """Deliver DICOM files; when this returns, the destination has them all.

        Raises:
            Unreachable: nothing can be delivered now, or only some of these files.
            NotTaken: one of these files was refused.
        """

    def close(self) -> None:
        """Say that nothing follows for now."""


class StoreDestination:
    """Sends by C-STORE; an association serves as long as one result follows another.

    Args:
        host: of the other application.
        port: of the other application.
        ae_title: of the other application.
        calling: AE title of this node.
        seconds: that connecting or an answer may take.
        tls: shown to the other application, and asked of it; ``None``: nothing is encrypted.
    """

    def __init__(
        self, host: str, port: int, ae_title: str, calling: str, seconds: float, tls: Certificates | None = None
    ) -> None:
        self.host = host
        self.port = port
        self.ae_title = ae_title
        self._entity = make_entity(calling, seconds)
        self._tls = None if tls is None else (tls.of_client(), host)
        self._association: Association | None = None
        self._classes: frozenset[str] = frozenset()

    def send(self, results: Sequence[bytes]) -> None:
        """Deliver; see `Destination`. A warning (Bxxx) is a success, "out of resources" (A7xx) means busy."""
        datasets = [pydicom.dcmread(BytesIO(result)) for result in results]
        association = self._connected(frozenset(str(dataset.SOPClassUID) for dataset in datasets))
        for dataset in datasets:
            try:
                status = association.send_c_store(dataset).get("Status")
            except (RuntimeError, ValueError) as error:  # closed meanwhile, or this class is not taken
                self.close()
                raise Unreachable(f"{self} takes no {dataset.SOPClassUID.name} now ({error})") from None
            if status is None:
                self.close()
                raise Unreachable(f"{self} ended the association or does not answer")
            if status >> 8 == 0xA7:
                raise Unreachable(f"{self} is out of resources (status {status:04X})")
            if status != 0 and status >> 12 != 0xB:
                raise NotTaken(f"{self} answers with status {status:04X}")

    def close(self) -> None:
        """Release the association."""
        if self._association is not None and self._association.is_established:
            self._association.release()
        self._association = None

    def _connected(self, classes: frozenset[str]) -> Association:
        """Return the association there is, or a new one where it does not serve."""
        if self._association is not None and self._association.is_established and classes <= self._classes:
            return self._association
        self.close()
        self._entity.requested_contexts = []
        for sop_class in classes:
            self._entity.add_requested_context(sop_class, list(SENT_SYNTAXES))
        association = self._entity.associate(self.host, self.port, ae_title=self.ae_title, tls_args=self._tls)
        if association.is_rejected:
            raise Unreachable(f"{self} rejects the association of {self._entity.ae_title}: allow it there")
        if association.rejected_contexts and not association.is_established:
            names = ", ".join(sorted(UID(name).name for name in classes))
            raise Unreachable(f"{self} takes no {names}: allow that there")
        if not association.is_established:
            advice = "" if self._tls is None else ", or not with a certificate that is trusted here, or trusts not ours"
            raise Unreachable(f"{self} does not answer{advice}")
        _send_at_once(association)
        association._reactor_checkpoint = _Checkpoint(association)
        self._association, self._classes = association, classes
        return association

    def __str__(self) -> str:
        return f"{self.ae_title} on {self.host}, port {self.port},"


class _Checkpoint(threading.Event):
    """Where the library's other thread of an association stops, so that it takes no answer from who waits for one.

    The library's own says that the thread has stopped a moment before it goes on, and now and then an answer is lost.

    Args:
        association: whose thread stops here.
    """

    def __init__(self, association: Association) -> None:
        super().__init__()
        self._association = association
        self._access = threading.Lock()
        self.set()

    def clear(self) -> None:
        """Let the thread stop; whether it has is said truly from here on."""
        with self._access:
            super().clear()

    def wait(self, timeout: float | None = None) -> bool:
        """Stop until the thread may go on, and say that it does."""
        while super().wait(timeout):
            with self._access:
                if self.is_set():
                    self._association._is_paused = False
                    return True
        return False


def _send_at_once(association: Association) -> None:
    """Let TCP not wait with the data set until the command before it is acknowledged, which takes 40 ms (Nagle)."""
    wrapper = association.dul.socket
    if wrapper is not None and wrapper.socket is not None:
        wrapper.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class WebDestination:
    """Sends by STOW-RS.

    Args:
        client: of the server, see :func:`scripts.deploy.node.web.make_client`.
    """

    def __init__(self, client: DICOMwebClient) -> None:
        self.client = client

    def send(self, results: Sequence[bytes]) -> None:
        """Deliver; see `Destination`."""
        datasets = [pydicom.dcmread(BytesIO(result)) for result in results]
        try:
            answer = self.client.store_instances(datasets)
        except OSError as error:  # as which requests raises all of its own
            raise web_refusal(self, error) from None
        failed = answer.get("FailedSOPSequence") or []
        if failed:
            raise NotTaken(f"{self} refuses a result for the reason {failed[0].get('FailureReason')}")

    def close(self) -> None:
        """Do nothing: HTTP's connections are kept by the client."""

    def __str__(self) -> str:
        return self.client.base_url


def web_refusal(server: object, error: OSError) -> Unreachable | NotTaken:
    """Return what it means that a server answered with an error, or not at all."""
    status = http_status(error)
    if status is None:
        return Unreachable(f"{server} does not answer ({type(error).__name__})")
    kind = Unreachable if status in _LATER or status >= 500 else NotTaken
    return kind(f"{server} answers with status {status}")


class Destinations:
    """Sends each result to several destinations; what one has, it is not sent again while this process runs.

    Args:
        destinations: in the order in which they are sent to. A result goes to each, whatever becomes of it at the
            others; while one is away, the results behind it wait.
    """

    def __init__(self, destinations: Sequence[Destination]) -> None:
        self.destinations = list(destinations)
        self._arrived: dict[bytes, set[int]] = {}

    def send(self, results: Sequence[bytes]) -> None:
        """Deliver; see `Destination`. Where one is away and another refuses, the former is what is said."""
        name = hashlib.sha256(b"".join(results)).digest()
        arrived = self._arrived.setdefault(name, set())
        troubles: list[Exception] = []
        for number, destination in enumerate(self.destinations):
            if number not in arrived:
                try:
                    destination.send(results)
                    arrived.add(number)
                except Exception as trouble:  # a fault in the code must not keep it from others
                    troubles.append(trouble)
        if troubles:
            raise next((trouble for trouble in troubles if isinstance(trouble, Unreachable)), troubles[0])
        del self._arrived[name]

    def close(self) -> None:
        """Say to each that nothing follows for now."""
        for destination in self.destinations:
            destination.close()
