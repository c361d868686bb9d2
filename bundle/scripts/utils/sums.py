"""Checksums of a folder's files, as ``sha256sum`` writes and checks them: what is loaded is what was written."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from scripts.utils.errors import UserError

SUMS = "SHA256SUMS"
"""Lists the files of a folder; ``sha256sum --check SHA256SUMS`` checks them without this code."""
_LINE = re.compile(r"([0-9a-f]{64})  (\w[\w.]*)")


def sha256(content: bytes) -> str:
    """Return the hash as 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def file_sha256(path: str | Path) -> str:
    """Return the hash of a file, which need not fit in memory."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sums_of(files: Mapping[str, bytes]) -> bytes:
    """Return the list of files, by name."""
    return "".join(f"{sha256(content)}  {name}\n" for name, content in sorted(files.items())).encode()


def read_checked(folder: Path, advice: str) -> dict[str, bytes]:
    """Read all files that a folder's list names, each once.

    Args:
        folder: holds :data:`SUMS`.
        advice: what to do about a file that is not as it was written.

    Returns:
        What they hold, by name.

    Raises:
        UserError: names the file that is missing, was changed, or is no list.
    """
    try:
        lines = (folder / SUMS).read_text(encoding="ascii").splitlines()
        listed = {match[2]: match[1] for line in lines if (match := _LINE.fullmatch(line))}
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder} has no {SUMS} that can be read, so nothing says that its files are whole: {advice}"
        ) from error
    if not lines or len(listed) < len(lines):
        raise UserError(f"{folder / SUMS} is no list of checksums: {advice}")
    return {name: _checked(folder / name, digest, advice) for name, digest in listed.items()}


def _checked(path: Path, digest: str, advice: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}, which {SUMS} lists, cannot be read ({error.strerror or error}): {advice}") from error
    if sha256(content) != digest:
        raise UserError(f"{path} is not as it was written, its checksum differs: {advice}")
    return content
