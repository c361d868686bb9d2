"""Whoever keeps connections, bytes or time from the node keeps nobody else out: C-ECHO goes on within a second."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any

import numpy as np
import pytest

from scripts.deploy.node.receiver import Receiver
from scripts.deploy.node.server import LONGEST_PDU, REJECTED, AssociationLimits
from scripts.deploy.queue import ImageQueue
from scripts.utils.errors import UserError

PART = (
    bytes.fromhex("0100000000d600010000") + b"NODE".ljust(16) + b"CALLER".ljust(16) + bytes(40)
)  # well-formed, cut off
HEAD = struct.pack(">BBL", 1, 0, 5000)  # of a request that goes on


@pytest.fixture
def listening(queue: ImageQueue, make_limits: Callable[..., AssociationLimits]) -> Iterator[Callable[..., int]]:
    """Start a receiver, and return its port."""
    with ExitStack() as stack:

        def start(**limits: Any) -> int:
            receiver = Receiver(queue, "127.0.0.1", 0, "NODE", [], ["MRImageStorage"], [], make_limits(**limits))
            return stack.enter_context(receiver).port

        yield start


@pytest.fixture
def echoes(call: Any) -> Callable[[int], bool]:
    """Say whether a C-ECHO is answered, and within a second."""

    def echo(port: int) -> bool:
        started = time.monotonic()
        association = call(port)
        answered = association.is_established and association.send_c_echo().Status == 0
        association.release()
        return answered and time.monotonic() - started < 1

    return echo


def connect(stack: ExitStack, port: int, source: str = "127.0.0.1", first: bytes = b"") -> socket.socket:
    connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), 10, (source, 0)))
    connection.sendall(first)
    return connection


def is_hung_up(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("first", [b"", HEAD, HEAD + bytes(100), PART], ids=["silent", "head", "part", "half"])
def test_connections_that_ask_for_nothing_keep_nobody_out(first: bytes, listening: Any, echoes: Any) -> None:
    port = listening(per_address=2, request_seconds=60)
    with ExitStack() as stack:
        waiting = [connect(stack, port, first=first) for _ in range(40)]
        assert echoes(port)
        assert all(is_hung_up(connection) for connection in waiting[:30])  # the oldest give way


def test_a_connection_that_waits_too_long_is_hung_up(listening: Any) -> None:
    port = listening(request_seconds=0.3)
    with ExitStack() as stack:
        silent, slow = connect(stack, port), connect(stack, port, first=HEAD)
        started = time.monotonic()
        for _ in range(3):
            time.sleep(0.08)
            slow.sendall(b"\0")  # a byte now and then is no request
        assert is_hung_up(silent) and is_hung_up(slow)
        assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    "content",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        struct.pack(">BBL", 1, 0, 0xFFFFFFFF) + bytes(1000),
        struct.pack(">BBL", 4, 0, 100) + bytes(100),
        struct.pack(">BBL", 1, 0, 100) + bytes(100),
        np.random.default_rng(0).bytes(5000),
    ],
    ids=["HTTP", "TLS", "endless", "data first", "empty request", "noise"],
)
def test_what_is_no_request_is_hung_up_at_once(content: bytes, listening: Any, echoes: Any) -> None:
    port = listening(request_seconds=60)
    with ExitStack() as stack:
        for _ in range(20):
            connection = connect(stack, port, first=content)
            connection.settimeout(10)
            try:
                while connection.recv(1000):  # a request that cannot be is answered before
                    pass
            except ConnectionResetError:
                pass
    for _ in range(20):  # a port scan
        socket.create_connection(("127.0.0.1", port)).close()
    assert echoes(port)


def test_a_pdu_longer_than_agreed_ends_its_association(listening: Any, call: Any, echoes: Any) -> None:
    port = listening()
    association = call(port)
    line = association.dul.socket.socket
    line.sendall(struct.pack(">BBL", 4, 0, LONGEST_PDU + 1) + bytes(100))
    assert until(lambda: not association.is_established)
    assert echoes(port)


def test_a_command_that_does_not_end_ends_its_association(listening: Any, call: Any, echoes: Any) -> None:
    port = listening()
    association = call(port)
    line = association.dul.socket.socket
    part = struct.pack(">LBB", 2**15 + 2, 1, 1) + bytes(2**15)  # of a command, and not the last
    with suppress(OSError):
        for _ in range(1000):
            line.sendall(struct.pack(">BBL", 4, 0, len(part)) + part)
            if not association.is_established:
                break
            time.sleep(0.01)
    assert until(lambda: not association.is_established)
    assert echoes(port)


def test_a_pdu_that_does_not_end_ends_its_association(listening: Any, call: Any, echoes: Any) -> None:
    port = listening(seconds=0.5)
    association = call(port)
    association.dul.socket.socket.sendall(struct.pack(">BBL", 4, 0, 1000) + bytes(10))
    assert until(lambda: not association.is_established)
    assert echoes(port)


def until(happened: Callable[[], bool]) -> bool:
    end = time.monotonic() + 10
    while not happened() and time.monotonic() < end:
        time.sleep(0.02)
    return happened()


def test_an_address_with_too_many_associations_is_rejected_and_others_are_not(
    listening: Any, call: Any, caplog: pytest.LogCaptureFixture
) -> None:
    port = listening(per_address=2)
    associations = [call(port) for _ in range(2)]
    assert all(association.is_established for association in associations)
    third = call(port)
    assert third.is_rejected and (REJECTED[7], REJECTED[9]) == (2, 2)
    assert "Rejected 127.0.0.1: it has too many (key 'limits#per_address')" in caplog.text
    other = call(port, source="127.0.0.2")
    assert other.is_established
    for association in (*associations, other):
        association.release()


def test_more_than_may_be_held_is_not_and_its_sender_may_try_again(
    listening: Any, call: Any, scans: Any, queue: ImageQueue, caplog: pytest.LogCaptureFixture
) -> None:
    port = listening(max_bytes=4_000_000, max_held=3_000_000)
    for side, taken in ((1900, False), (1000, True)):
        image = scans.make_dicom(np.zeros((side, side), np.uint8))
        for _ in range(2):
            association = call(port, [image])
            assert (association.send_c_store(image).get("Status") == 0) is taken
            assert (queue.state(image.SOPInstanceUID) is not None) is taken
            association.release()
    assert "more than 3000000 bytes are being received (key 'limits#max_held')" in caplog.text


def test_a_receiver_ends_at_once_whoever_waits(queue: ImageQueue, make_limits: Any) -> None:
    with ExitStack() as stack:
        with Receiver(
            queue, "127.0.0.1", 0, "NODE", [], ["MRImageStorage"], [], make_limits(request_seconds=60)
        ) as receiver:
            waiting = [connect(stack, receiver.port) for _ in range(3)]
            time.sleep(0.2)
            started = time.monotonic()
        assert time.monotonic() - started < 5
        assert all(is_hung_up(connection) for connection in waiting)


@pytest.mark.parametrize("name", ["associations", "per_address", "max_bytes", "max_held", "request_seconds", "seconds"])
def test_a_limit_of_nothing_is_refused(name: str, make_limits: Any) -> None:
    with pytest.raises(UserError, match=rf"{name} is 0: give a number above 0 \(key 'limits#{name}'\)"):
        make_limits(**{name: 0})
