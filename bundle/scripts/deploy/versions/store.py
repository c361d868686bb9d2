"""Immutable versions of a trained model, one of which is promoted: the one that every door serves."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.deploy.versions.audit import AuditLog, account, syslog_at
from scripts.deploy.versions.card import model_card
from scripts.utils import formats
from scripts.utils.errors import UserError
from scripts.utils.files import VERSION, cannot_write, copy_file, whole_folder, write_atomically
from scripts.utils.json_files import FRACTION, TEXT, TEXTS, JsonFiles
from scripts.utils.sums import SUMS, sha256, sums_of

CARD = "model_card.md"
PROMOTED = "promoted"
AUDIT = "audit.jsonl"
KEY = ".key"
READ_ONLY, READ_ONLY_FOLDER = 0o444, 0o555
ADVICE = "restore it from a copy; until then its version is void"
_COUNTS = {"type": "object", "additionalProperties": {"type": "integer", "minimum": 0}}
_TASK = {"type": "object", "required": ["name", "classes"], "properties": {"name": TEXT, "classes": TEXTS}}
_TESTED = {
    "type": "object",
    "required": ["images", "recalls", "mean_class_recall", "calibration_error", "refused"],
    "properties": {
        "images": _COUNTS,
        "recalls": {"type": "object", "additionalProperties": {**FRACTION, "type": ["number", "null"]}},
        "mean_class_recall": {**FRACTION, "type": ["number", "null"]},
        "calibration_error": {**FRACTION, "type": ["number", "null"]},
        "refused": {"type": "integer", "minimum": 0},
    },
}
SCHEMA = {
    "type": "object",
    "required": ["number", "parent", "name", "tasks", "tested", "accuracy_matrix", "config", "licence", "files"],
    "properties": {
        "format": {"type": "integer", "minimum": 1},
        "number": {"type": "integer", "minimum": 1},
        "parent": {"type": ["integer", "null"]},
        "name": TEXT,
        "tasks": {"type": "array", "items": _TASK},
        "tested": _TESTED,
        "accuracy_matrix": {"type": "array", "items": {"type": "array"}},
        "config": {"type": "object"},
        "licence": TEXT,
        "files": {
            "type": "object",
            "propertyNames": {"pattern": r"^\w[\w.]*$"},
            "additionalProperties": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
        },
    },
}
"""What a version's record holds, as a JSON schema. Its files' names lead nowhere else."""
_RECORDS = JsonFiles(SCHEMA, ADVICE, most=1024)


@dataclass(frozen=True)
class Version:
    """A trained model as it was when it was added.

    Attributes:
        number: from 1, in the order they were added.
        folder: holds its files.
        record: ``version.json``: its number, its parent's, the hash of each file, and what it was added with.
    """

    number: int
    folder: Path
    record: Mapping[str, Any]

    @property
    def parent(self) -> int | None:
        """The version that it was learnt from."""
        return self.record["parent"]

    @property
    def classes(self) -> list[str]:
        """What it knows, in the order that was learnt."""
        return [name for task in self.record["tasks"] for name in task["classes"]]


class VersionStore:
    """A folder of versions, with an audit log of all that happens to them.

    Args:
        folder: is made when the first version is added.
        key: what signs the audit log; ``None``: the file beside the folder that is named after it, ``<folder>.key``.
        syslog: where each new head of the log is told, too; see :func:`scripts.deploy.versions.audit.syslog_at`.
        by: whose acts are written down; ``None``: who runs this process.
    """

    def __init__(
        self, folder: str | Path, key: str | Path | None = None, syslog: str | None = None, by: str | None = None
    ) -> None:
        self.folder = Path(folder).absolute()
        self.by = by or account()
        self.syslog = syslog
        key = key or self.folder.with_name(f"{self.folder.name}{KEY}")
        self.audit = AuditLog(self.folder / AUDIT, key, *([] if syslog is None else [syslog_at(syslog)]))

    @property
    def place(self) -> dict[str, Any]:
        """What another process opens this store with."""
        return {"folder": str(self.folder), "key": str(self.audit.key.path), "syslog": self.syslog}

    def begin(self) -> None:
        """Make the key of the audit log of a store that holds nothing yet, unless one was made for it.

        Raises:
            UserError: the folder cannot be written.
        """
        key = self.audit.key
        if not key.exists and not self.audit.exists and not self.versions():
            key.make()

    def versions(self) -> list[Version]:
        """Return all versions, oldest first.

        Raises:
            UserError: when the record of one was changed, so that it cannot be read.
        """
        found = [path for path in self.folder.glob("versions/*") if re.fullmatch("[0-9]{4,9}", path.name)]
        folders = sorted(found, key=lambda path: int(path.name))
        return [Version(int(folder.name), folder, _record(folder)) for folder in folders]

    def version(self, number: int) -> Version:
        """Return a version.

        Raises:
            UserError: when there is none of this number; it lists those there are.
        """
        found = {version.number: version for version in self.versions()}
        if number not in found:
            present = ", ".join(map(str, found)) or "none yet"
            raise UserError(f"{self.folder} has no version {number}: choose among those there are ({present})")
        return found[number]

    def promoted(self) -> Version | None:
        """Return the version that is served now.

        Raises:
            UserError: when what is served is none of the versions.
        """
        link = self.folder / PROMOTED
        if not link.is_symlink():
            return None
        number = os.readlink(link).rpartition("/")[2]
        if not re.fullmatch("[0-9]{4,9}", number):
            raise UserError(f"{link} was changed, it leads to {number!r}: promote a version anew")
        return self.version(int(number))

    def add(self, files: Mapping[str, bytes], details: Mapping[str, Any], parent: int | None) -> Version:
        """Take a model in: whole or not at all, and never to be changed.

        Args:
            files: its files, by name.
            details: what more its record says.
            parent: the version that it was learnt from.

        Raises:
            UserError: when the folder cannot be written.
        """
        self.begin()
        number = max((version.number for version in self.versions()), default=0) + 1
        record = {"format": formats.VERSION, "number": number, "parent": parent, **details, "files": _hashes(files)}
        described = {VERSION: f"{json.dumps(record, indent=4)}\n".encode(), CARD: model_card(record).encode()}
        described[SUMS] = sums_of({**files, **described})
        with self.audit.entry("added", {"version": number, "parent": parent, "files": _hashes(described)}, self.by):
            self._write(number, {**files, **described})
        return self.version(number)

    def _write(self, number: int, files: Mapping[str, bytes]) -> None:
        target = self.folder / "versions" / f"{number:04d}"
        with whole_folder(target) as waiting:
            for name, content in files.items():
                write_atomically(waiting / name, content, READ_ONLY)
        target.chmod(READ_ONLY_FOLDER)

    def copy_to(self, folder: Path, with_key: bool) -> None:
        """Copy the store as its log is at one moment, whoever is at work: log, versions, and what is served.

        The public half of the key, and the head of the log, lie beside the copy as they do beside any store.

        Args:
            folder: is made.
            with_key: copy the private half, too.

        Raises:
            UserError: the log or a version is not as it was written.
            OSError: something cannot be copied.
        """
        copy = VersionStore(folder)
        self.audit.copy_to(copy.audit, with_key)
        logged = {event["version"] for event in copy.audit.events() if event["event"] == "added"}
        for version in self.versions():
            for file in version.folder.iterdir() if version.number in logged else ():
                copy_file(file, folder / "versions" / version.folder.name / file.name)
        copy.serve_as_logged()
        copy.check()

    def seal(self) -> None:
        """Let no version be written to, as after :meth:`add`; of a store that was copied."""
        for version in self.versions():
            for file in version.folder.iterdir():
                file.chmod(READ_ONLY)
            version.folder.chmod(READ_ONLY_FOLDER)

    def promote(self, number: int, **details: Any) -> None:
        """Serve another version from now on; its files are checked first. One that is served already stays.

        Args:
            number: of the version.
            details: what more is written down, such as what it was asked to pass.

        Raises:
            UserError: when there is no such version, or it was changed.
        """
        self.check_version(self.version(number))
        if self.history()[-1:] == [number]:
            self.serve_as_logged()
            return
        with self.audit.entry("promoted", {"version": number, **details}, self.by):
            self.serve_as_logged()

    def rollback(self) -> int:
        """Serve the version that was served before the last promotion, and return its number.

        Raises:
            UserError: when there is none, or it was changed.
        """
        served = self.history()
        if len(served) < 2:
            raise UserError(f"{self.folder} has no promotion to take back: what is served stays as it is")
        number = served[-2]
        self.check_version(self.version(number))
        with self.audit.entry("rolled back", {"version": number, "from": served[-1]}, self.by):
            self.serve_as_logged()
        return number

    def refuse(self, number: int, objections: list[str]) -> None:
        """Write down that a version was not promoted, and why."""
        self.audit.add("refused", {"version": number, "objections": objections}, self.by)

    def recover(self) -> None:
        """Complete what a killed process has left: serve what the audit log says, once that was verified.

        Raises:
            UserError: the log was changed; what is served stays.
        """
        self.audit.complete()
        self.serve_as_logged()

    def serve_as_logged(self) -> None:
        """Serve what the audit log says.

        Raises:
            UserError: the log was changed.
        """
        served = self.history()
        if not served:
            return
        waiting, target = self.folder / f".{PROMOTED}.tmp", Path("versions") / f"{served[-1]:04d}"
        try:
            waiting.unlink(missing_ok=True)
            waiting.symlink_to(target)
            os.replace(waiting, self.folder / PROMOTED)
        except OSError as error:
            raise cannot_write(self.folder / PROMOTED, error) from error

    def history(self) -> list[int]:
        """Return the versions served, oldest first, without those that were taken back."""
        served: list[int] = []
        for event in self.audit.events():
            if event["event"] == "promoted":
                served.append(event["version"])
            elif event["event"] == "rolled back":
                served.pop()
        return served

    def check(self) -> None:
        """Check the audit log, every file of every version, and what is served. Nothing is changed.

        Raises:
            UserError: names what was changed.
        """
        history = self.history()
        for version in self.versions():
            self.check_version(version)
        served = self.promoted()
        if (None if served is None else served.number) != (history[-1] if history else None):
            raise UserError(
                f"{self.folder / PROMOTED} leads to {'nothing' if served is None else f'version {served.number}'}, and "
                f"the audit log says {history[-1] if history else 'nothing'}: run recover"
            )

    def check_version(self, version: Version) -> None:
        """Check every file of a version.

        Raises:
            UserError: names what was changed.
        """
        added = [event for event in self.audit.events() if event["event"] == "added"]
        described = {event["version"]: event["files"] for event in added}.get(version.number)
        if described is None:
            raise UserError(f"{version.folder} is not in the audit log: it was not added here, remove it")
        check_files(version.folder, described)
        check_files(version.folder, version.record["files"])


def _record(folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = _RECORDS(folder / VERSION)
    formats.require_known(folder / VERSION, record.get("format", formats.VERSION), formats.VERSION)
    return record


def check_files(folder: Path, hashes: Mapping[str, str]) -> None:
    """Compare files with their hashes.

    Raises:
        UserError: names the file that is missing or was changed.
    """
    for name, expected in hashes.items():
        path = folder / name
        if not path.is_file() or sha256(path.read_bytes()) != expected:
            raise UserError(f"{path} is not as it was added: {ADVICE}")


def _hashes(files: Mapping[str, bytes]) -> dict[str, str]:
    return {name: sha256(content) for name, content in files.items()}
