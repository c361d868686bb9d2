"""An audit log: one line an event, each with the hash of the one before, so that a changed byte is found."""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scripts.errors import UserError
from scripts.files import cannot_write, write_atomically

START = "0" * 64
"""What stands for the hash before the first event."""


class AuditLog:
    """A file of JSON lines, to which events are only added.

    A changed, added or removed line breaks the chain from there on. Lines cut off at the end do not: compare
    :attr:`head` with a copy kept elsewhere.

    Args:
        path: the file; several processes may add to it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def add(self, event: str, details: Mapping[str, Any]) -> None:
        """Write an event down, before this returns, to disk.

        Args:
            event: what happened.
            details: what more there is to say; no patient's data.

        Raises:
            UserError: the log was changed, or cannot be written.
        """
        with self._locked():
            events = self.events()
            entry = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **details}
            entry["previous"] = events[-1]["hash"] if events else START
            line = json.dumps({**entry, "hash": digest(entry)})
            before = self.path.read_text(encoding="utf-8") if events else ""
            write_atomically(self.path, f"{before}{line}\n")

    def events(self) -> list[dict[str, Any]]:
        """Return all events, oldest first.

        Raises:
            UserError: names the first line that is not as it was written.
        """
        lines = self.path.read_bytes().split(b"\n") if self.path.is_file() else [b""]
        if lines.pop():
            raise UserError(f"{self.path} was changed: its last line is not whole. Restore it from a copy")
        events: list[dict[str, Any]] = []
        for number, line in enumerate(lines, start=1):
            event = _read(line)
            expected = events[-1]["hash"] if events else START
            if event.get("previous") != expected or json.dumps(event).encode() != line or not _whole(event):
                raise UserError(
                    f"{self.path} was changed: line {number} is not as written. Restore the log from a copy"
                )
            events.append(event)
        return events

    @property
    def head(self) -> str:
        """The hash of the last event, which vouches for all before it."""
        events = self.events()
        return str(events[-1]["hash"]) if events else START

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


def digest(entry: Mapping[str, Any]) -> str:
    """Return the hash of an event, the hash before it included."""
    return hashlib.sha256(json.dumps(entry).encode()).hexdigest()


def _whole(event: Mapping[str, Any]) -> bool:
    return event.get("hash") == digest({key: value for key, value in event.items() if key != "hash"})


def _read(line: bytes) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return event if isinstance(event, dict) else {}
