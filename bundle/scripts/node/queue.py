"""What was received, on disk until it is answered: a kill at any moment loses nothing and answers nothing twice."""

from __future__ import annotations

import hashlib
import hmac
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from scripts.errors import UserError
from scripts.files import cannot_write, hold, secret_key, sync_folder

KEY, DATABASE, LOG, LOCK = "key", "queue.db", "queue.db-wal", "lock"
LARGEST = 900_000_000
"""SQLite holds blobs of up to 10^9 bytes."""

_SETTINGS = (
    "page_size = 16384",  # half the time of 4096 for an image
    "journal_mode = WAL",
    # a commit survives a kill, and a power cut once the log is flushed, which is done for what is received; a power cut
    # may take back the last of the later steps, together, and they are done again
    "synchronous = NORMAL",
    "wal_autocheckpoint = 16384",  # 64 MiB: images pass through the log
    "secure_delete = ON",  # images and results name patients
    "busy_timeout = 60000",
)
_TABLES = """
CREATE TABLE IF NOT EXISTS images (
    place INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, state TEXT NOT NULL, model TEXT NOT NULL,
    reason TEXT, changed TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS waiting ON images (place) WHERE state IN ('received', 'classified');
CREATE TABLE IF NOT EXISTS files (
    name TEXT NOT NULL, number INTEGER NOT NULL, dicom BLOB NOT NULL, PRIMARY KEY (name, number)
);
"""
_NEW_PLACE = "(SELECT COALESCE(MAX(place), 0) + 1 FROM images)"
# what may be queued again; asks for the identity of the model
_AGAIN = "(images.state = 'refused' OR (images.state IN ('sent', 'ignored') AND images.model <> ?))"


class State(StrEnum):
    """What has become of an image."""

    RECEIVED = "received"
    CLASSIFIED = "classified"
    SENT = "sent"
    REFUSED = "refused"
    IGNORED = "ignored"


@dataclass(frozen=True)
class Entry:
    """An image that waits for its next step.

    Attributes:
        name: see :meth:`ImageQueue.name`.
        state: received or classified.
        files: the image, or once it is classified the results: DICOM files, byte for byte those of every attempt.
    """

    name: str
    state: State
    files: tuple[bytes, ...]


class QueueRecord:
    """What has become of the images that a queue has seen; to be read also while a node is at work.

    Args:
        folder: of the queue.

    Raises:
        UserError: there is no queue, or it cannot be read.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        if not (self.folder / DATABASE).is_file():
            raise UserError(f"no queue in {folder}: give the folder that the node was started with (key 'queue_dir')")
        self._open()

    def _open(self) -> None:
        self._access = threading.Lock()
        try:
            self._key = secret_key(self.folder / KEY)
        except OSError as error:
            raise cannot_write(self.folder, error) from error
        self._database = _opened(self.folder / DATABASE)

    def name(self, uid: str) -> str:
        """Return what an image is called in the queue and the log: an HMAC of its SOP Instance UID."""
        return hmac.new(self._key, uid.encode(), hashlib.sha256).hexdigest()[:32]

    def state(self, uid: str) -> State | None:
        """Return what has become of an image; ``None``: it was never received."""
        found = self._rows("SELECT state FROM images WHERE name = ?", self.name(uid))
        try:
            return State(found[0][0]) if found else None
        except ValueError as error:
            raise _damaged(self.folder / DATABASE, error) from error

    def counts(self) -> dict[State, int]:
        """Return how many images are in each state."""
        found = dict(self._rows("SELECT state, COUNT(*) FROM images GROUP BY state"))
        return {state: found.get(state, 0) for state in State}

    def refusals(self) -> list[tuple[str, str, str]]:
        """Return time (UTC), name and code of each refused image, the oldest first."""
        return self._rows("SELECT changed, name, reason FROM images WHERE state = 'refused' ORDER BY changed, place")

    def close(self) -> None:
        """Let go of the folder."""
        self._database.close()

    def _rows(self, statement: str, *values: Any) -> list[Any]:
        with self._access:
            try:
                return self._database.execute(statement, values).fetchall()
            except sqlite3.Error as error:
                raise _damaged(self.folder / DATABASE, error) from error


class ImageQueue(QueueRecord):
    """Images in the order of their arrival, in one SQLite file; each step is one transaction.

    Any thread may use it.

    The folder (mode 0700) holds ``queue.db``, a key, and a lock: one process at a time. An image is deleted when its
    results are there, and they are when they have arrived. What stays is the image's name, an HMAC, and what became of
    it.

    Args:
        folder: on a local disk; made where it is missing.
        model: says which model answers now, and how: an image that it has answered is not queued again.

    Raises:
        UserError: the folder cannot be used, or another process uses it.
    """

    def __init__(self, folder: str, model: Callable[[], str]) -> None:
        self.folder = Path(folder)
        self._answering = model
        self.arrived = threading.Event()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.folder.chmod(0o700)
            self._lock = hold(self.folder / LOCK, "node", "queue_dir")
        except OSError as error:
            raise cannot_write(self.folder, error) from error
        self._open()
        self._log = os.open(self.folder / LOG, os.O_RDONLY)
        sync_folder(self.folder)

    @property
    def model(self) -> str:
        """Which model answers now, in few letters."""
        return hashlib.sha256(self._answering().encode()).hexdigest()[:32]

    def add(self, uid: str, dicom: bytes) -> bool:
        """Take an image; when this returns, it is on disk.

        Args:
            uid: its SOP Instance UID.
            dicom: the file.

        Returns:
            Whether it waits now because of this call. It does not where it waits already, or was answered by this
            model; one that was refused is tried again.

        Raises:
            UserError: it could not be written.
        """
        name = self.name(uid)
        with self._transaction() as execute:
            added = execute(
                f"INSERT INTO images VALUES ({_NEW_PLACE}, ?, 'received', ?, NULL, ?) ON CONFLICT (name) DO UPDATE SET "
                f"place = {_NEW_PLACE}, state = 'received', reason = NULL, changed = excluded.changed WHERE {_AGAIN}",
                (name, self.model, _now(), self.model),
            ).rowcount
            if added:
                execute("INSERT INTO files VALUES (?, 0, ?)", (name, dicom))
        self.arrived.set()  # it may be classified while it is flushed to disk
        try:
            os.fsync(self._log)
        except OSError as error:
            raise cannot_write(self.folder / LOG, error) from error
        return bool(added)

    def next(self) -> Entry | None:
        """Return the first image that waits, if one does; it stays until a later step."""
        self.arrived.clear()
        first = self._rows(
            "SELECT name, state FROM images WHERE state IN ('received', 'classified') ORDER BY place LIMIT 1"
        )
        if not first:
            return None
        files = self._rows("SELECT dicom FROM files WHERE name = ? ORDER BY number", first[0][0])
        return Entry(first[0][0], State(first[0][1]), tuple(row[0] for row in files))

    def classified(self, entry: Entry, results: Sequence[bytes]) -> Entry:
        """Keep the results of an image instead of the image; they are what is sent, however often that takes."""
        self._settle(entry, State.CLASSIFIED, files=results)
        return Entry(entry.name, State.CLASSIFIED, tuple(results))

    def sent(self, entry: Entry) -> None:
        """Note that the results of an image have arrived; they are deleted."""
        self._settle(entry, State.SENT)

    def refused(self, entry: Entry, reason: str) -> None:
        """Put an image on the list of those that cannot be classified, with the code of the reason; it is deleted."""
        self._settle(entry, State.REFUSED, reason)

    def ignored(self, entry: Entry, reason: str) -> None:
        """Note that an image is not to be classified; it is deleted."""
        self._settle(entry, State.IGNORED, reason)

    def postpone(self, entry: Entry) -> None:
        """Put an image behind all others."""
        with self._transaction() as execute:
            execute(f"UPDATE images SET place = {_NEW_PLACE} WHERE name = ?", (entry.name,))

    def tidy(self) -> None:
        """Cut off what SQLite's log still holds of images and results that are deleted."""
        with self._access:
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Let another process use the folder."""
        if not self._lock.closed:
            os.close(self._log)
        super().close()
        self._lock.close()

    def _settle(self, entry: Entry, state: State, reason: str | None = None, files: Sequence[bytes] = ()) -> None:
        with self._transaction() as execute:
            execute("DELETE FROM files WHERE name = ?", (entry.name,))
            for number, dicom in enumerate(files):
                execute("INSERT INTO files VALUES (?, ?, ?)", (entry.name, number, dicom))
            execute(
                "UPDATE images SET state = ?, reason = ?, changed = ?, "
                "model = CASE state WHEN 'classified' THEN model ELSE ? END WHERE name = ?",
                (state, reason, _now(), self.model, entry.name),
            )

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        with self._access:
            try:
                with self._database:
                    self._database.execute("BEGIN IMMEDIATE")
                    yield self._database.execute
            except sqlite3.Error as error:
                raise UserError(
                    f"cannot write {self.folder / DATABASE} ({error}): free some space there, or mend the folder"
                ) from error


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _opened(path: Path) -> sqlite3.Connection:
    try:
        database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        for setting in _SETTINGS:
            database.execute(f"PRAGMA {setting}")
        database.executescript(_TABLES)
    except sqlite3.Error as error:
        raise _damaged(path, error) from error
    return database


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(
        f"{path} cannot be used as a queue ({error}): move its folder away, and send again what it held "
        "(key 'queue_dir')"
    )
