"""What was received, on disk until it is answered: a kill at any moment loses nothing and answers nothing twice."""

from __future__ import annotations

import hashlib
import hmac
import os
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from scripts.imaging.decoding.reasons import ImageRefused, Reason
from scripts.utils import formats
from scripts.utils.errors import UserError
from scripts.utils.files import cannot_write, copy_file, hold, secret_key, sync_folder

KEY, DATABASE, LOG, LOCK, IMAGES = "key", "queue.db", "queue.db-wal", "lock", "images"
_CHUNK = 2**20

_SETTINGS = (
    "page_size = 16384",  # half the time of 4096 for a result
    "journal_mode = WAL",
    # a commit survives a kill, and a power cut once the log is flushed, which is done for what is received and before
    # an image is deleted; a power cut may take back the last of the later steps, together, and they are done again
    "synchronous = NORMAL",
    "wal_autocheckpoint = 4096",  # 64 MiB: results pass through the log
    "secure_delete = ON",  # results name patients
    "busy_timeout = 60000",
)
_TABLES = """
CREATE TABLE IF NOT EXISTS images (
    place INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, state TEXT NOT NULL, model TEXT NOT NULL,
    reason TEXT, changed TEXT NOT NULL, content TEXT NOT NULL, file TEXT NOT NULL DEFAULT '',
    tries INTEGER NOT NULL DEFAULT 0, due REAL NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS waiting ON images (place) WHERE state IN ('received', 'classified');
CREATE TABLE IF NOT EXISTS results (
    name TEXT NOT NULL, number INTEGER NOT NULL, dicom BLOB NOT NULL, PRIMARY KEY (name, number)
);
"""
_NEW_PLACE = "(SELECT COALESCE(MAX(place), 0) + 1 FROM images)"
# what may be queued again; asks for the identity of the model
_AGAIN = "(images.state IN ('refused', 'failed') OR (images.state IN ('sent', 'ignored') AND images.model <> ?))"


class State(StrEnum):
    """What has become of an image."""

    RECEIVED = "received"
    CLASSIFIED = "classified"
    SENT = "sent"
    FAILED = "failed"
    REFUSED = "refused"
    IGNORED = "ignored"


WAITING = (State.RECEIVED, State.CLASSIFIED)


@dataclass(frozen=True)
class Entry:
    """An image that waits for its next step.

    Attributes:
        name: see :meth:`ImageQueue.name`.
        state: received or classified.
        image: its file, until it is classified.
        results: of what is classified: DICOM files, byte for byte those of every attempt.
        tries: how often the results were not taken.
    """

    name: str
    state: State
    image: Path
    results: tuple[bytes, ...] = ()
    tries: int = 0


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
        return self._code(uid.encode())

    def _code(self, content: bytes) -> str:
        return hmac.digest(self._key, content, "sha256").hex()[:32]

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

    def waiting_seconds(self) -> float:
        """Return how long the oldest image has waited for its next step; 0 where none waits."""
        ((since,),) = self._rows("SELECT MIN(changed) FROM images WHERE state IN ('received', 'classified')")
        return 0.0 if since is None else max((datetime.now(UTC) - datetime.fromisoformat(since)).total_seconds(), 0.0)

    def refusals(self) -> list[tuple[str, str, str]]:
        """Return time (UTC), name and code of each refused image, the oldest first."""
        return self._listed(State.REFUSED)

    def failures(self) -> list[tuple[str, str, str]]:
        """Return time (UTC), name and the last answer of each image whose results were given up, the oldest first."""
        return self._listed(State.FAILED)

    def retry(self, names: Sequence[str] = ()) -> int:
        """Let results that were given up be sent again, all where none is named, and return how many they are.

        Raises:
            UserError: one that is named was not given up; none is sent then.
        """
        failed = {name for _, name, _ in self.failures()}
        unknown = sorted(set(names) - failed)
        if unknown:
            raise UserError(f"the results of {unknown[0]} were not given up: `queue failed` lists those that were")
        chosen = [(name,) for name in names or failed]
        with self._transaction():
            self._database.executemany(
                "UPDATE images SET state = 'classified', reason = NULL, tries = 0, due = 0 "
                "WHERE name = ? AND state = 'failed'",
                chosen,
            )
        return len(chosen)

    def copy_to(self, folder: Path) -> None:
        """Copy the queue as it is at one moment, without its key; a node may be at work.

        All images that wait are copied first, for as long as that takes. Then no step is taken until the database is
        copied, and the images that came meanwhile.

        Args:
            folder: is made.

        Raises:
            UserError: the database is damaged.
            OSError: something cannot be copied.
        """
        images = folder / IMAGES
        images.mkdir(parents=True, mode=0o700)
        for file in self._waiting(self._rows):
            with suppress(FileNotFoundError):  # it was classified meanwhile
                copy_file(self.folder / IMAGES / file, images / file)
        with (
            self._transaction() as execute,
            closing(sqlite3.connect(self.folder / DATABASE)) as reading,
            closing(sqlite3.connect(folder / DATABASE)) as written,
        ):
            reading.backup(written)
            if (found := written.execute("PRAGMA quick_check").fetchone()) != ("ok",):
                raise _damaged(self.folder / DATABASE, ValueError(found[0]))
            waiting = self._waiting(lambda statement: execute(statement).fetchall())
            for file in waiting - {path.name for path in images.iterdir()}:
                copy_file(self.folder / IMAGES / file, images / file)
        for path in images.iterdir():
            if path.name not in waiting:
                path.unlink()
        (folder / DATABASE).chmod(0o600)

    @staticmethod
    def _waiting(rows: Callable[[str], list[Any]]) -> set[str]:
        """Return the names of the files of all images that are still needed, whatever stands in a damaged database."""
        return {Path(file).name for (file,) in rows("SELECT file FROM images WHERE state = 'received'")}

    def close(self) -> None:
        """Let go of the folder."""
        self._database.close()

    def _listed(self, state: State) -> list[tuple[str, str, str]]:
        statement = "SELECT changed, name, reason FROM images WHERE state = ? ORDER BY changed, place"
        return self._rows(statement, state)

    def _rows(self, statement: str, *values: Any) -> list[Any]:
        with self._access:
            try:
                return self._database.execute(statement, values).fetchall()
            except sqlite3.Error as error:
                raise _damaged(self.folder / DATABASE, error) from error

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


class ImageQueue(QueueRecord):
    """Images in the order of their arrival: files, and what becomes of them in SQLite; each step is one transaction.

    Any thread may use it. No image is ever held in memory: each lies in a file of its own from its first byte on, which
    counts once the database names it.

    The folder (mode 0700) holds ``images``, ``queue.db``, a key, and a lock: one process at a time. An image is deleted
    when its results are there, and they are when they have arrived; those that were given up stay. Of all others stays
    the image's name, an HMAC, and what became of it.

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
        self._images = self.folder / IMAGES
        try:
            self._images.mkdir(parents=True, exist_ok=True)
            self.folder.chmod(0o700)
            self._lock = hold(self.folder / LOCK, "node", "queue_dir")
        except OSError as error:
            raise cannot_write(self.folder, error) from error
        self._open()
        with self._transaction() as execute:
            execute("UPDATE images SET due = 0 WHERE due > 0")  # it was a time of the process before
        self._sweep()
        self._log = os.open(self.folder / LOG, os.O_RDONLY)
        sync_folder(self.folder)

    @property
    def model(self) -> str:
        """Which model answers now, in few letters."""
        return hashlib.sha256(self._answering().encode()).hexdigest()[:32]

    def new_file(self) -> Path:
        """Return a file to be filled and given to :meth:`add`; what is never added is deleted at the next start.

        Raises:
            OSError: it cannot be made.
        """
        descriptor, path = tempfile.mkstemp(".dcm", dir=self._images)
        os.close(descriptor)
        return Path(path)

    def add(self, uid: str, file: Path) -> bool:
        """Take an image; when this returns, it is on disk.

        Args:
            uid: its SOP Instance UID.
            file: one of :meth:`new_file`, which is the queue's from now on.

        Returns:
            Whether it waits now because of this call. It does not where it waits already, or was answered by this
            model; one that was refused is tried again.

        Raises:
            ImageRefused: another file of this UID waits or was answered; this one is listed as refused.
            UserError: it could not be written.
        """
        added = False
        try:
            content = self._on_disk(file)
            added, same = self._add(uid, file.name, content)
        finally:
            if not added:
                _delete(file)
        self.arrived.set()  # it may be classified while it is flushed to disk
        self._flush()
        if not same:
            name, other = self.name(uid), self._other(uid, content)
            raise ImageRefused(f"{other} has the SOP Instance UID of {name}, and is another file", Reason.SAME_INSTANCE)
        return added

    def _add(self, uid: str, file: str, content: str) -> tuple[bool, bool]:
        """Return whether the image waits because of this, and whether that which is known by its UID is the same."""
        name = self.name(uid)
        with self._transaction() as execute:
            added = execute(
                f"INSERT INTO images VALUES ({_NEW_PLACE}, ?, 'received', ?, NULL, ?, ?, ?, 0, 0) "
                f"ON CONFLICT (name) DO UPDATE SET place = {_NEW_PLACE}, state = 'received', reason = NULL, "
                "changed = excluded.changed, content = excluded.content, file = excluded.file, tries = 0, due = 0 "
                f"WHERE {_AGAIN}",
                (name, self.model, _now(), content, file, self.model),
            ).rowcount
            if added:
                execute("DELETE FROM results WHERE name = ?", (name,))  # that were given up
                execute("DELETE FROM images WHERE name = ?", (self._other(uid, content),))
            same = execute("SELECT content FROM images WHERE name = ?", (name,)).fetchone() == (content,)
            if not same:
                self._list(execute, self._other(uid, content), Reason.SAME_INSTANCE, content)
        return bool(added), same

    def _other(self, uid: str, content: str) -> str:
        """Return what another file under the UID of an image is called."""
        return self.name(f"{uid} {content}")

    def _on_disk(self, file: Path) -> str:
        """Flush a file to disk, with its name, and return an HMAC of its content."""
        code = hmac.new(self._key, digestmod="sha256")
        try:
            with open(file, "rb") as image:
                while chunk := image.read(_CHUNK):
                    code.update(chunk)
                os.fsync(image.fileno())
            sync_folder(self._images)
        except OSError as error:
            raise cannot_write(file, error) from error
        return code.hexdigest()[:32]

    def turned_away(self, uid: str, reason: Reason) -> None:
        """List an image as refused that did not come in whole; what is known of it stays."""
        with self._transaction() as execute:
            self._list(execute, self.name(uid), reason, "")

    def _list(self, execute: Any, name: str, reason: Reason, content: str) -> None:
        execute(
            f"INSERT INTO images VALUES ({_NEW_PLACE}, ?, 'refused', ?, ?, ?, ?, '', 0, 0) "
            "ON CONFLICT (name) DO NOTHING",
            (name, self.model, reason, _now(), content),
        )

    def _flush(self) -> None:
        try:
            os.fsync(self._log)
        except OSError as error:
            raise cannot_write(self.folder / LOG, error) from error

    def next(self, states: Sequence[State] = WAITING, but: Collection[str] = ()) -> Entry | None:
        """Return the first image in one of these states that waits and is due; it stays until a later step.

        Args:
            states: received, classified.
            but: names that are passed over.
        """
        marks, others = (", ".join("?" * len(values)) for values in (states, but))
        first = self._rows(  # the first two states choose the index
            "SELECT name, state, file, tries FROM images WHERE state IN ('received', 'classified') "
            f"AND state IN ({marks}) AND due <= ? AND name NOT IN ({others}) ORDER BY place LIMIT 1",
            *states,
            time.monotonic(),
            *but,
        )
        if not first:
            return None
        name, state, file, tries = first[0]
        results = self._rows("SELECT dicom FROM results WHERE name = ? ORDER BY number", name)
        return Entry(name, State(state), self._image(file), tuple(row[0] for row in results), tries)

    def _image(self, file: str) -> Path:
        return self._images / Path(file).name  # whatever stands in a damaged database

    def classified(self, entry: Entry, results: Sequence[bytes]) -> Entry:
        """Keep the results of an image instead of the image; they are what is sent, however often that takes."""
        self._settle(entry, State.CLASSIFIED, results=results)
        return Entry(entry.name, State.CLASSIFIED, entry.image, tuple(results))

    def sent(self, entry: Entry) -> None:
        """Note that the results of an image have arrived; they are deleted."""
        self._settle(entry, State.SENT)

    def refused(self, entry: Entry, reason: str) -> None:
        """Put an image on the list of those that cannot be classified, with the code of the reason; it is deleted."""
        self._settle(entry, State.REFUSED, reason)

    def ignored(self, entry: Entry, reason: str) -> None:
        """Note that an image is not to be classified; it is deleted."""
        self._settle(entry, State.IGNORED, reason)

    def postpone(self, entry: Entry, seconds: float) -> None:
        """Note that the results of an image were not taken; they keep their place, and are due after a pause."""
        with self._transaction() as execute:
            execute(
                "UPDATE images SET tries = tries + 1, due = ? WHERE name = ?",
                (time.monotonic() + seconds, entry.name),
            )

    def failed(self, entry: Entry, reason: str) -> None:
        """Give the results of an image up; they are kept for :meth:`retry`."""
        with self._transaction() as execute:
            execute(
                "UPDATE images SET state = 'failed', reason = ?, changed = ? WHERE name = ?",
                (reason, _now(), entry.name),
            )

    def tidy(self) -> None:
        """Cut off what SQLite's log still holds of results that are deleted."""
        with self._access:
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Let another process use the folder."""
        if not self._lock.closed:
            os.close(self._log)
        super().close()
        self._lock.close()

    def _settle(self, entry: Entry, state: State, reason: str | None = None, results: Sequence[bytes] = ()) -> None:
        with self._transaction() as execute:
            execute("DELETE FROM results WHERE name = ?", (entry.name,))
            for number, dicom in enumerate(results):
                execute("INSERT INTO results VALUES (?, ?, ?)", (entry.name, number, dicom))
            execute(
                "UPDATE images SET state = ?, reason = ?, changed = ?, file = '', "
                "model = CASE state WHEN 'classified' THEN model ELSE ? END WHERE name = ?",
                (state, reason, _now(), self.model, entry.name),
            )
        if entry.state is State.RECEIVED:
            self._flush()  # a power cut must not take back the step that the image is no longer needed for
            _delete(entry.image)

    def _sweep(self) -> None:
        """Delete files that no image has: a process before was killed while they came in, or once they were done."""
        kept = self._waiting(self._rows)
        for path in self._images.iterdir():
            if path.name not in kept:
                _delete(path)


def _delete(file: Path) -> None:
    with suppress(OSError):  # what cannot be deleted now is at the next start
        file.unlink()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _opened(path: Path) -> sqlite3.Connection:
    try:
        database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        for setting in _SETTINGS:
            database.execute(f"PRAGMA {setting}")
        (found,) = database.execute("PRAGMA user_version").fetchone()
        formats.require_known(path, found, formats.QUEUE)
        database.executescript(_TABLES)
        if found < formats.QUEUE:
            database.execute(f"PRAGMA user_version = {formats.QUEUE}")
    except sqlite3.Error as error:
        raise _damaged(path, error) from error
    return database


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(
        f"{path} cannot be used as a queue ({error}): move its folder away, and send again what it held "
        "(key 'queue_dir')"
    )
