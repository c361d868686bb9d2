"""An audit log: one signed line an event, each with the hash of the one before, and its head kept elsewhere."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import pwd
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from logging.handlers import SysLogHandler
from pathlib import Path
from typing import Any

from scripts.utils.errors import UserError
from scripts.utils.files import cannot_write, copy_file, write_atomically
from scripts.utils.signing import SigningKey

START = "0" * 64
"""What stands for the hash before the first event."""
HEAD = ".head"
"""What the name of the file ends with that keeps the head; it stands beside the key."""


def account() -> str:
    """Return who runs this process: the name of the account, or its number where it has none."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


class AuditLog:
    """A file of JSON lines, to which events are only added.

    A changed, added, moved or removed line breaks the chain, and a chain that was written anew has no signature of the
    key. A tail that was cut off, or a log that is gone, is told by the head: how many events there were and the hash of
    the last, signed, in a file that stands beside the key, which is outside of the folder of the log.

    Args:
        path: the file; several processes may add to it.
        key: of the signatures (:class:`scripts.utils.signing.SigningKey`).
        tell: is given each new head as a line of text, to keep it somewhere else, too.
    """

    def __init__(self, path: str | Path, key: str | Path, tell: Callable[[str], None] = lambda head: None) -> None:
        self.path = Path(path)
        self.key = SigningKey(Path(key))
        self.tell = tell

    def add(self, event: str, details: Mapping[str, Any], by: str) -> None:
        """Write down an event that is done by being written; see :meth:`entry`."""
        with self.entry(event, details, by):
            pass

    @contextmanager
    def entry(self, event: str, details: Mapping[str, Any], by: str) -> Iterator[None]:
        """Write an event down, to disk, before what it says is done; the new head is told last, so that it is done.

        Args:
            event: what happened.
            details: what more there is to say; no patient's data.
            by: who did it.

        Raises:
            UserError: the log was changed, or cannot be written or signed, and nothing is done; or the head cannot be
                told, and all is done.
        """
        with self._locked():
            events = self.events()
            entry = {**details, "time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, "by": by}
            entry["previous"] = events[-1]["hash"] if events else START
            entry["hash"] = digest(entry)
            entry["signature"] = self.key.sign(entry["hash"])
            before = self.path.read_text(encoding="utf-8") if events else ""
            write_atomically(self.path, f"{before}{json.dumps(entry)}\n")
            head = self._keep_head(len(events) + 1, entry["hash"])
        yield
        self.tell(head)

    def events(self) -> list[dict[str, Any]]:
        """Return all events, oldest first. Nothing is changed.

        Raises:
            UserError: names the first line that is not as it was written, or says that lines are missing at the end.
        """
        events = self._chain()
        if events or self._head_path.is_file():
            self._compare_with_head(events)
        return events

    def copy_to(self, other: AuditLog, with_key: bool) -> None:
        """Copy the log as it is at one moment, its head and the public half of its key; the private one if asked for.

        Raises:
            UserError: the log was changed.
            OSError: something cannot be copied.
        """
        with self._locked():
            self.events()
            for own, copy in ((self.path, other.path), (self._head_path, other._head_path)):
                copy_file(own, copy)
        self.key.copy_to(other.key, with_key)

    @property
    def exists(self) -> bool:
        """Whether there is a log, or was one."""
        return self.path.exists() or self._head_path.exists()

    @property
    def head(self) -> str:
        """The hash of the last event, which vouches for all before it."""
        events = self.events()
        return str(events[-1]["hash"]) if events else START

    def complete(self) -> None:
        """Keep the head of an event that was written by a process which was killed before it could.

        Raises:
            UserError: as :meth:`events`.
        """
        with self._locked():
            if events := self.events():
                self.tell(self._keep_head(len(events), events[-1]["hash"]))

    def vouch(self, head: str) -> None:
        """Keep the head anew where its file was lost, for a person who has it from elsewhere.

        Raises:
            UserError: the log's head is another one.
        """
        with self._locked():
            events = self._chain()
            if not events or events[-1]["hash"] != head:
                raise UserError(
                    f"the head of {self.path} is another one: restore the log from a copy that ends with it"
                )
            self.tell(self._keep_head(len(events), head))

    @property
    def _head_path(self) -> Path:
        return self.key.path.with_name(self.key.path.name + HEAD)

    def _chain(self) -> list[dict[str, Any]]:
        lines = self.path.read_bytes().split(b"\n") if self.path.is_file() else [b""]
        if lines.pop():
            raise UserError(f"{self.path} was changed: its last line is not whole. Restore it from a copy")
        events: list[dict[str, Any]] = []
        for number, line in enumerate(lines, start=1):
            event = _read(line)
            expected = events[-1]["hash"] if events else START
            if event.get("previous") != expected or json.dumps(event).encode() != line or not self._whole(event):
                raise UserError(
                    f"{self.path} was changed: line {number} is not as written, or not signed with {self.key.path}. "
                    "Restore the log from a copy"
                )
            events.append(event)
        return events

    def _whole(self, event: Mapping[str, Any]) -> bool:
        entry = {key: value for key, value in event.items() if key not in ("hash", "signature")}
        return event.get("hash") == digest(entry) and self.key.has_signed(event["hash"], str(event.get("signature")))

    def _compare_with_head(self, events: list[dict[str, Any]]) -> None:
        try:
            kept = _read(self._head_path.read_bytes())
        except OSError as error:
            raise UserError(
                f"the head of {self.path} is not in {self._head_path} ({error.strerror}): compare the log with a head "
                "kept elsewhere, then run recover --head HASH"
            ) from error
        count, head = kept.get("events"), kept.get("hash")
        if not isinstance(count, int) or not self.key.has_signed(_head_text(count, head), str(kept.get("signature"))):
            raise UserError(f"{self._head_path} was changed: restore it from a copy")
        if len(events) < count:
            raise UserError(
                f"{self.path} was cut: it has {len(events)} events, and had {count}. Restore the log from a copy"
            )
        if events[count - 1]["hash"] != head:
            raise UserError(f"{self.path} was written anew: event {count} is another one. Restore the log from a copy")

    def _keep_head(self, count: int, head: str) -> str:
        """Sign the head and keep it beside the key; return it as others are told it."""
        content = {"events": count, "hash": head, "signature": self.key.sign(_head_text(count, head))}
        write_atomically(self._head_path, json.dumps(content) + "\n")
        return _head_text(count, head)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes out."""
        with ExitStack() as stack:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                lock = stack.enter_context(open(self.path.with_name(f".{self.path.name}.lock"), "w"))
            except OSError as error:
                raise cannot_write(self.path, error) from error
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


class _Telling(SysLogHandler):
    """Says that nobody listens, where logging would print it and go on."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        raise  # noqa: PLE0704


def syslog_at(address: str) -> Callable[[str], None]:
    """Return what tells a syslog a line.

    Args:
        address: a socket's path such as ``/dev/log``, or ``HOST:PORT`` (UDP).

    Raises:
        UserError: when a line cannot be sent.
    """
    host, _, port = address.rpartition(":")
    place = (host, int(port)) if host and port.isdecimal() else address

    def tell(line: str) -> None:
        try:
            with closing(_Telling(place, SysLogHandler.LOG_AUTH)) as handler:
                handler.emit(logging.LogRecord(__name__, logging.INFO, "", 0, line, None, None))
        except OSError as error:
            raise UserError(
                f"no syslog at {address} ({error.strerror or error}) was told '{line}': what happened is written down "
                "and done; give a socket or HOST:PORT that listens (key 'audit_syslog')"
            ) from error

    return tell


def digest(entry: Mapping[str, Any]) -> str:
    """Return the hash of an event, the hash before it included."""
    return hashlib.sha256(json.dumps(entry).encode()).hexdigest()


def _head_text(count: int, head: object) -> str:
    return f"audit log: {count} events, head {head}"


def _read(line: bytes) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return event if isinstance(event, dict) else {}
