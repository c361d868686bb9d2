"""pynetdicom's server behind limits that it does not have: of time, of connections an address, and of bytes a PDU."""

from __future__ import annotations

import logging
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from socketserver import BaseServer
from typing import Any

from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

from scripts.deploy.limits import Limits
from scripts.utils.errors import fault

LONGEST_PDU = 2**18
"""Bytes that callers are told a PDU may have (PS3.8 D.1)."""
ASSOCIATE_RQ, HEAD = b"\1", 6
REJECTED = bytes([3, 0, 0, 0, 0, 4, 0, 2, 3, 2])
"""A-ASSOCIATE-RJ: for now, by the presentation layer, a local limit is exceeded (PS3.8 9.3.4)."""
CROWD = 5
"""For each association that an address may have, so many of its connections may wait for their request."""
_CHUNK = 2**16

Address = tuple[Any, ...]


@dataclass(frozen=True)
class AssociationLimits(Limits):
    """What callers may take of the node; the association of an object over a limit is aborted.

    That is so before all of it has come: where it is longer than ``max_bytes``, it is listed as refused, where too much
    comes at a time its sender tries again.

    Args:
        associations: at a time, at most.
        per_address: associations of an address, at most; five times as many of its connections may wait for their
            request.
        request_seconds: from a connection to the end of its request for an association, TLS included, at most.
        seconds: of silence, and from the first byte of a PDU to its last, at most.

    Raises:
        UserError: for a number that means nothing.
    """

    associations: int
    per_address: int
    request_seconds: float
    seconds: float


class Server(ThreadedAssociationServer):
    """Makes an association of a connection once its whole request is there; until then it is a thread that reads.

    Of too many connections of an address that wait, that which has waited longest gives way to a new one: nobody is
    kept out by them.

    Args:
        settings: of pynetdicom's server; so is ``more``.
        limits: of what comes in.
        dimse: makes what takes an association's messages.
    """

    daemon_threads = True
    request_queue_size = 1024  # with the library's 5, a burst makes others wait a second

    def __init__(
        self,
        *settings: Any,
        limits: AssociationLimits,
        dimse: Callable[[Association], DIMSEServiceProvider],
        **more: Any,
    ) -> None:
        self.limits = limits
        self.dimse = dimse
        self._waiting: dict[Address, socket.socket] = {}
        self._access = threading.Lock()
        self._logger = logging.getLogger(__name__)
        super().__init__(*settings, **more)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Take a connection on; TLS is agreed on in its own thread, where it holds up nobody."""
        assert self.socket is not None
        connection, address = self.socket.accept()
        connection.settimeout(self.limits.request_seconds)
        if self.ssl_context is not None:
            connection = self.ssl_context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Note that a connection waits; the oldest of too many is hung up."""
        with self._access:
            of_address = [address for address in self._waiting if address[0] == client_address[0]]
            if len(of_address) >= CROWD * self.limits.per_address:
                _hang_up(self._waiting.pop(of_address[0]))
            self._waiting[client_address] = request
        return True

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Read the request for an association, and make one; runs in the connection's own thread."""
        try:
            first = self._first_pdu(request)
        except (OSError, ValueError) as error:
            self._logger.info("Hung up on %s: %s.", client_address[0], error)
            first = b""
        with self._access:
            self._waiting.pop(client_address, None)
        if first and self._open(client_address[0]) >= self.limits.per_address:
            self._logger.warning("Rejected %s: it has too many (key 'limits#per_address').", client_address[0])
            with suppress(OSError):
                request.sendall(REJECTED)
            first = b""
        if not first:
            self.shutdown_request(request)
        else:
            _Handler(request, client_address, self, first)

    def _open(self, host: str) -> int:
        """Return how many associations an address has."""
        return sum(association.requestor.address == host for association in self.active_associations)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Write down that a connection broke, without what it sent."""
        error = sys.exception()
        if isinstance(error, Exception):
            self._logger.error("A fault with %s: %s", client_address[0], fault(error))

    def service_actions(self) -> None:
        """Do nothing: the library collects garbage at every 60th connection, which takes a second beside torch."""

    def shutdown(self) -> None:
        """Take no more connections on, and hang up on all that wait."""
        BaseServer.shutdown(self)  # the library's takes the server off a list that it is not on
        self.server_close()
        with self._access:
            for connection in self._waiting.values():
                _hang_up(connection)

    def _first_pdu(self, connection: socket.socket) -> bytes:
        """Return a request for an association, whole.

        Raises:
            OSError: it does not come in time.
            ValueError: it is none.
        """
        deadline = time.monotonic() + self.limits.request_seconds
        if isinstance(connection, ssl.SSLSocket):
            connection.do_handshake()
        head = _received(connection, HEAD, deadline)
        length = int.from_bytes(head[2:])
        if len(head) < HEAD or head[:1] != ASSOCIATE_RQ or length > LONGEST_PDU:
            raise ValueError("it asks for no association")
        first = bytes(head + _received(connection, length, deadline))
        if len(first) < HEAD + length:
            raise ValueError("its request for an association is cut short")
        try:
            request = A_ASSOCIATE_RQ()
            request.decode(first)
            request.to_primitive()
        except Exception:  # whatever pynetdicom raises on a broken request
            raise ValueError("its request for an association is broken") from None
        return first


class _Handler(RequestHandler):
    def __init__(self, request: Any, client_address: Any, server: Server, first: bytes) -> None:
        self.first = first
        self.limited = server
        super().__init__(request, client_address, server)

    def _create_association(self) -> Any:
        association = super()._create_association()
        whole = association.dul.socket
        assert whole is not None
        association.dul.socket = _Socket(whole, self.first, self.limited.limits.seconds)
        association.dimse = self.limited.dimse(association)
        return association


class _Socket(AssociationSocket):
    """Stands in the place of pynetdicom's: gives the request first, and waits for no PDU without end.

    Args:
        whole: that in whose place it stands.
        first: what was read already.
        seconds: for the rest of a PDU.
    """

    def __init__(self, whole: AssociationSocket, first: bytes, seconds: float) -> None:
        self.__dict__.update(whole.__dict__)
        self.first = bytearray(first)
        self.seconds = seconds

    @property
    def ready(self) -> bool:
        """Whether there is something to read."""
        return bool(self.first) or super().ready

    def recv(self, nr_bytes: int) -> bytearray:
        """Return the head of a PDU, or its rest.

        Raises:
            OSError: the PDU is longer than callers were told, or does not come in time.
        """
        if self.first:
            taken, self.first = self.first[:nr_bytes], self.first[nr_bytes:]
            return taken
        if nr_bytes > LONGEST_PDU:
            raise OSError(f"a PDU of {nr_bytes} bytes is longer than agreed")
        assert self.socket is not None
        received = _received(self.socket, nr_bytes, time.monotonic() + self.seconds)
        self.socket.settimeout(self.seconds)  # of what is sent
        return received


def _received(connection: socket.socket, size: int, deadline: float) -> bytearray:
    """Return so many bytes, or fewer where the caller hangs up.

    Raises:
        OSError: they do not come in time.
    """
    received = bytearray()
    while len(received) < size:
        connection.settimeout(max(deadline - time.monotonic(), 1e-3))
        part = connection.recv(min(size - len(received), _CHUNK))
        if not part:
            break
        received += part
    return received


def _hang_up(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def serving(server: Server) -> Iterator[None]:
    """Take connections on until the end of the block."""
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="receiver", daemon=True)
    thread.start()
    try:
        yield
    finally:
        for association in server.active_associations:
            association.abort()
        server.shutdown()
        thread.join()
