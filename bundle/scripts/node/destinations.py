"""Where results are sent: another application by C-STORE (DICOM PS3.4 B), or a server by STOW-RS (PS3.18 10.5)."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from io import BytesIO
from typing import Protocol

import pydicom
from dicomweb_client import DICOMwebClient
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.association import Association

from scripts.node.entity import make_entity
from scripts.node.web import http_status

# HTTP answers that say nothing of what was sent: not allowed in, too slow, too many
_LATER = (401, 403, 404, 407, 408, 429)


class Unreachable(Exception):
    """The destination is away, busy or not set up for results: it is tried again, and nothing overtakes."""


class NotTaken(Exception):
    """The destination is there and does not want this result: others go first, then it is tried again."""


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
    """

    def __init__(self, host: str, port: int, ae_title: str, calling: str, seconds: float) -> None:
        self.host = host
        self.port = port
        self.ae_title = ae_title
        self._entity = make_entity(calling, seconds)
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
            self._entity.add_requested_context(sop_class, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
        association = self._entity.associate(self.host, self.port, ae_title=self.ae_title)
        if association.is_rejected:
            raise Unreachable(f"{self} rejects the association of {self._entity.ae_title}: allow it there")
        if association.rejected_contexts and not association.is_established:
            names = ", ".join(sorted(UID(name).name for name in classes))
            raise Unreachable(f"{self} takes no {names}: allow that there")
        if not association.is_established:
            raise Unreachable(f"{self} does not answer")
        _send_at_once(association)
        self._association, self._classes = association, classes
        return association

    def __str__(self) -> str:
        return f"{self.ae_title} on {self.host}, port {self.port},"


def _send_at_once(association: Association) -> None:
    """Let TCP not wait with the data set until the command before it is acknowledged, which takes 40 ms (Nagle)."""
    wrapper = association.dul.socket
    if wrapper is not None and wrapper.socket is not None:
        wrapper.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class WebDestination:
    """Sends by STOW-RS.

    Args:
        client: of the server, see :func:`scripts.node.web.make_client`.
    """

    def __init__(self, client: DICOMwebClient) -> None:
        self.client = client

    def send(self, results: Sequence[bytes]) -> None:
        """Deliver; see `Destination`."""
        datasets = [pydicom.dcmread(BytesIO(result)) for result in results]
        try:
            answer = self.client.store_instances(datasets)
        except OSError as error:  # as which requests raises all of its own
            status = http_status(error)
            if status is None:
                raise Unreachable(f"{self} does not answer ({type(error).__name__})") from None
            kind = Unreachable if status in _LATER or status >= 500 else NotTaken
            raise kind(f"{self} answers with status {status}") from None
        failed = answer.get("FailedSOPSequence") or []
        if failed:
            raise NotTaken(f"{self} refuses a result for the reason {failed[0].get('FailureReason')}")

    def close(self) -> None:
        """Do nothing: HTTP's connections are kept by the client."""

    def __str__(self) -> str:
        return self.client.base_url
