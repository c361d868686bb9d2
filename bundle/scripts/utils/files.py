"""Files that are written whole or not at all, and folders that one process at a time uses."""

from __future__ import annotations

import csv
import errno
import fcntl
import io
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from scripts.utils.errors import UserError

WEIGHTS, DESCRIPTION = "model.pt", "network.json"
"""What the folder of a trained model holds."""
VERSION = "version.json"
"""What the folder of a version holds more."""
CHECKPOINT = "checkpoint.pt"
"""What a run has learnt so far."""
CONFIG = "config.json"
"""What a run was started with."""
TASKS = "tasks.json"
"""What a run writes of the tasks that it has learnt."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_LOCKED = {errno.EACCES, errno.EPERM, errno.EROFS}


def write_atomically(
    path: str | os.PathLike[str], content: str | bytes | Callable[[BinaryIO], object], mode: int | None = None
) -> None:
    """Replace a file in one step: a reader, or a crash at any moment, finds the old file or the new one.

    The content goes to a hidden file beside the target, which is flushed to disk and renamed. Its name is always the
    same, so what a killed process left is overwritten by the next write; one process at a time may write a path.

    Args:
        path: the file; its folder is made where it is missing.
        content: text (written as UTF-8), bytes, or a function that writes to the open binary file it is given
            (an OSError it raises is taken for a failed write).
        mode: of the file, before anything is in it; ``None``: what the process gives.

    Raises:
        UserError: the folder cannot be written or the disk is full. The old file is then untouched.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            _fill(file, content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
        sync_folder(target.parent)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        cause = _cause(error)
        if isinstance(cause, OSError):
            raise cannot_write(target, cause) from error
        if cause is error:
            raise
        raise cause from None


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Give a folder to fill, which is called by its name only at the end of the block: it is there whole or not at all.

    Until then it lies beside its place under a hidden name, for its owner's eyes; what a killed process left there is
    deleted first.

    Args:
        target: its place; where nothing is, or an empty folder. The folders above it are made.

    Raises:
        UserError: it cannot be written or the disk is full. Nothing is left then.
    """
    waiting = target.with_name(f".{target.name}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _delete_folder(waiting)
        waiting.mkdir(mode=0o700)
        yield waiting
        for folder in (waiting, *(path for path in waiting.rglob("*") if path.is_dir() and not path.is_symlink())):
            sync_folder(folder)
        os.replace(waiting, target)
        sync_folder(target.parent)
    except BaseException as error:
        with suppress(OSError):
            _delete_folder(waiting)
        if isinstance(error, OSError):
            raise cannot_write(target, error) from error
        raise


def _delete_folder(folder: Path) -> None:
    """Delete a folder, also one that may not be written."""
    for within, _, _ in os.walk(folder):
        os.chmod(within, 0o700)
    if folder.exists():
        shutil.rmtree(folder)


def copy_file(source: Path, target: Path, mode: int = 0o600) -> None:
    """Copy what a file holds, to disk.

    Raises:
        FileNotFoundError: it is gone.
        UserError: it cannot be read.
        OSError: the copy cannot be written.
    """
    try:
        read = source.open("rb")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"cannot read {source} ({error.strerror}): run this as who may") from error
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with read, open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as written:
        shutil.copyfileobj(read, written, 2**20)
        written.flush()
        os.fsync(written.fileno())


def require_empty(folder: Path, what: str) -> None:
    """Stop where something is in a folder, or a file is in its place.

    Args:
        folder: to be filled; it need not be there.
        what: it is for.

    Raises:
        UserError: in each case.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"{folder} is not empty: give a folder for {what} that is not there yet")


def keep_private() -> None:
    """Let all that this process and its children write be for their owner's eyes: folders 0700, files 0600."""
    os.umask(0o077)


def hold(path: Path, whose: str, key: str) -> BinaryIO:
    """Lock a file for as long as it is open, so that one process at a time uses its folder.

    Args:
        path: the lock file; made where it is missing.
        whose: what uses the folder, for the message.
        key: of the config, that names another folder.

    Raises:
        UserError: another process holds it.
    """
    lock = path.open("ab")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise UserError(
            f"another {whose} uses {path.parent}: stop it, or give this one a folder of its own (key '{key}')"
        ) from None
    return lock


def secret_key(path: Path) -> bytes:
    """Return the 32 random bytes that a file holds; made where it is missing, for its owner's eyes."""
    if not path.is_file():
        write_atomically(path, secrets.token_bytes(32), 0o600)
    return path.read_bytes()


def write_csv(path: str | os.PathLike[str], rows: Iterable[Sequence[object]]) -> None:
    """Write rows as CSV, atomically; None becomes an empty cell.

    Args:
        path: the file.
        rows: the header and the rows, each a sequence of cells.

    Raises:
        UserError: as :func:`write_atomically`.
    """
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_atomically(path, text.getvalue())


def plain_name(name: str) -> str:
    r"""Return a file's name (or a text with one) as can be written anywhere: a byte that is no UTF-8 is ``\udcNN``."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def last_line(log: Path) -> str:
    """Return the last line with text in a log."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it printed nothing"


def cannot_write(path: str | os.PathLike[str], error: OSError) -> UserError:
    """Say in one line why a path could not be written and what to do.

    Args:
        path: what was to be written.
        error: what the operating system answered.

    Returns:
        The error to raise.
    """
    advice = "check the path"
    if error.errno in _FULL:
        advice = "free some space there and run again"
    elif error.errno in _LOCKED:
        advice = "make its folder writable or choose another one"
    return UserError(f"cannot write {path}: {error.strerror or error}; {advice}")


def require_folder(path: str, what: str, given: str) -> None:
    """Stop where a folder is missing, or a file is in its place.

    Args:
        path: of the folder.
        what: it is called.
        given: how another one is named.

    Raises:
        UserError: in each case.
    """
    if os.path.isfile(path):
        raise UserError(f"{what} {path} is a file: give the folder that it is in ({given})")
    if not os.path.isdir(path):
        raise UserError(f"{what} {path} is missing: give one that exists ({given})")


def require_apart(folder: str, output_dir: str) -> None:
    """Stop where results would lie among the images, and be the next run's images.

    Args:
        folder: of the images.
        output_dir: of the results.

    Raises:
        UserError: when one lies in the other, or the output folder is a file.
    """
    images, results = Path(folder).resolve(), Path(output_dir).resolve()
    if images.is_relative_to(results) or results.is_relative_to(images):
        raise UserError(f"output folder {output_dir} and image folder {folder} lie in each other: give one apart")
    if results.is_file():
        raise UserError(f"output folder {output_dir} is a file: give a folder")


def _fill(file: BinaryIO, content: str | bytes | Callable[[BinaryIO], object]) -> None:
    if callable(content):
        content(file)
    else:
        file.write(content.encode("utf-8") if isinstance(content, str) else content)


def sync_folder(folder: Path) -> None:
    """Flush a folder to disk: a file that was made or renamed in it is there after a power cut only then."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cause(error: BaseException) -> BaseException:
    # torch.save hides a full disk, Ctrl-C and SIGTERM: it raises a RuntimeError of its own while it handles the other
    hidden = error.__context__ if isinstance(error, RuntimeError) else None
    return hidden if isinstance(hidden, (OSError, KeyboardInterrupt, SystemExit)) else error
