"""Copy what a hospital must not lose while its doors are open, and put it back into an empty place."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from scripts import bundle_version
from scripts.deploy.queue import DATABASE, KEY, QueueRecord
from scripts.deploy.versions.store import AUDIT, VersionStore
from scripts.deploy.versions.store import KEY as STORE_KEY
from scripts.utils import formats
from scripts.utils.errors import UserError
from scripts.utils.files import CONFIG, copy_file, require_empty, whole_folder, write_atomically
from scripts.utils.json_files import TEXT, read_json
from scripts.utils.looked_on import looked_on
from scripts.utils.sums import file_sha256
from scripts.utils.words import counted

MANIFEST = "backup.json"
_NAME = {"type": "string", "pattern": r"^(?!.*(^|/)\.{0,2}(/|$))[^/].*$"}
"""Of a place in the backup: it leads nowhere else."""


class Kind(StrEnum):
    """What a folder is."""

    QUEUE = "queue"
    STORE = "store"
    IMAGES = "images"
    RUN = "run"


SCHEMA = {
    "type": "object",
    "required": ["format", "made", "software", "parts", "keys", "files"],
    "properties": {
        "format": {"type": "integer", "minimum": 1},
        "made": TEXT,
        "software": TEXT,
        "parts": {"type": "object", "propertyNames": _NAME, "additionalProperties": {"enum": [*Kind]}},
        "keys": {"type": "array", "items": _NAME},
        "files": {
            "type": "object",
            "propertyNames": _NAME,
            "additionalProperties": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
        },
    },
}
"""What a backup's manifest holds, as a JSON schema."""
ADVICE = "it is no whole backup; take another one"


@dataclass(frozen=True)
class Part:
    """A folder that is copied as one.

    Attributes:
        folder: where it is.
        name: its place in the backup.
        kind: what it is.
    """

    folder: Path
    name: Path
    kind: Kind


def backup(sources: Sequence[Path], target: Path, with_keys: bool, key: Path | None = None) -> str:
    """Copy queues, stores of versions, the folder of a labelling service, and runs, each as it is at one moment.

    Args:
        sources: their folders; whoever works on them goes on.
        target: where nothing is yet. A backup that is cut off leaves nothing there.
        with_keys: copy what signs and what names images, too.
        key: what signs the log of a store, where it does not lie beside it.

    Returns:
        What was done.

    Raises:
        UserError: a source is none of these, or not as it was written; the target is not empty or cannot be written.
    """
    require_empty(target, "the backup")
    parts = [part for source in sources for part in _parts(source)]
    names = [part.name for part in parts]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"two of the folders would be {twice} in the backup: make a backup of each")
    with whole_folder(target) as waiting:
        for part in looked_on(parts, "Copying", len(parts), "folder"):
            _COPY[part.kind](part, waiting / part.name, with_keys, key)
        files = {str(path.relative_to(waiting)): file_sha256(path) for path in _files(waiting)}
        manifest = {
            "format": formats.BACKUP,
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "software": bundle_version(),
            "parts": {str(part.name): part.kind for part in parts},
            "keys": [str(secret) for part in parts if (secret := _secret(part)) is not None],
            "files": files,
        }
        write_atomically(waiting / MANIFEST, json.dumps(manifest, indent=1) + "\n", 0o600)
    said = [f"{target} holds {counted(len(files), 'file')} of {counted(len(parts), 'folder')}:"]
    said += [f"  {part.name} ({part.kind})" for part in parts]
    said.append(_said_of_keys(manifest))
    said.append(f"Its manifest, to be kept elsewhere too: {file_sha256(target / MANIFEST)}")
    return "\n".join(said)


def restore(source: Path, target: Path) -> str:
    """Put a backup back into an empty place, once every file of it was compared.

    Args:
        source: the backup.
        target: where nothing is yet; it holds afterwards what the backup does, under the same names.

    Returns:
        What was done.

    Raises:
        UserError: names the file that is missing or was changed, or says that an audit log does not verify. Nothing is
            written then.
    """
    manifest = read_json(source / MANIFEST, SCHEMA, ADVICE)
    formats.require_known(source / MANIFEST, manifest["format"], formats.BACKUP)
    require_empty(target, "what is restored")
    files: dict[str, str] = manifest["files"]
    for name in looked_on(files, "Checking", len(files), "file"):
        _compare(source / name, files[name])
    stores = [name for name, kind in manifest["parts"].items() if kind == Kind.STORE]
    with whole_folder(target) as waiting:
        for name in looked_on(files, "Copying", len(files), "file"):
            copy_file(source / name, waiting / name)
            _compare(waiting / name, files[name])
        for name in stores:
            store = VersionStore(waiting / name)
            store.serve_as_logged()
            store.check()
    for name in stores:
        VersionStore(target / name).seal()
    said = [f"{target} holds what {source} does, as of {manifest['made']}:"]
    said += [f"  {name} ({kind})" for name, kind in manifest["parts"].items()]
    return "\n".join([*said, _said_of_keys(manifest)])


def _parts(source: Path) -> Iterator[Part]:
    """Return what is copied of a folder, by what lies in it.

    Raises:
        UserError: nothing tells what it is.
    """
    folder = source.absolute()
    name = Path(folder.name)
    if (folder / DATABASE).is_file():
        yield Part(folder, name, Kind.QUEUE)
    elif (folder / AUDIT).is_file():
        yield Part(folder, name, Kind.STORE)
    elif (folder / CONFIG).is_file():
        yield Part(folder, name, Kind.RUN)
    elif (folder / "store" / AUDIT).is_file() and (folder / "images").is_dir():
        from scripts.deploy.service.trainings import OUTCOME  # takes seconds

        yield Part(folder / "store", name / "store", Kind.STORE)
        yield Part(folder / "images", name / "images", Kind.IMAGES)
        for outcome in sorted(folder.glob(f"trainings/*/{OUTCOME}")):
            yield Part(outcome.parent, name / outcome.parent.relative_to(folder), Kind.RUN)
    else:
        raise UserError(
            f"{source} is neither a node's queue, a store of versions, the folder of a labelling service, nor a run: "
            "give one of these"
        )


def _copy_queue(part: Part, target: Path, with_keys: bool, key: Path | None) -> None:
    with closing(QueueRecord(str(part.folder))) as record:
        record.copy_to(target)
    _copy_key(part, target, with_keys)


def _copy_store(part: Part, target: Path, with_keys: bool, key: Path | None) -> None:
    VersionStore(part.folder, key).copy_to(target, with_keys)


def _copy_images(part: Part, target: Path, with_keys: bool, key: Path | None) -> None:
    from scripts.deploy.service.images import copy_images  # takes seconds

    copy_images(part.folder, target)
    _copy_key(part, target, with_keys)


def _copy_run(part: Part, target: Path, with_keys: bool, key: Path | None) -> None:
    """Copy a run; it replaces its files and never writes into one, so that each is whole."""
    for path in _files(part.folder):
        copy_file(path, target / path.relative_to(part.folder))


_COPY: dict[Kind, Callable[[Part, Path, bool, Path | None], None]] = {
    Kind.QUEUE: _copy_queue,
    Kind.STORE: _copy_store,
    Kind.IMAGES: _copy_images,
    Kind.RUN: _copy_run,
}


def _copy_key(part: Part, target: Path, with_keys: bool) -> None:
    if with_keys:
        copy_file(part.folder / KEY, target / KEY)


def _secret(part: Part) -> Path | None:
    """Return the place of a part's secret key in a backup."""
    match part.kind:
        case Kind.STORE:
            return part.name.with_name(f"{part.name.name}{STORE_KEY}")
        case Kind.QUEUE | Kind.IMAGES:
            return part.name / KEY
    return None


def _said_of_keys(manifest: dict[str, Any]) -> str:
    inside = [name for name in manifest["keys"] if name in manifest["files"]]
    if inside:
        return f"The keys are in it ({', '.join(inside)}): whoever has them can sign, and tell who an image is of."
    return (
        f"No key is in it: put back {', '.join(manifest['keys'])} of your own copy before anything is started, or "
        "nothing can be signed, and images that are sent again are answered again."
        if manifest["keys"]
        else "No key belongs to it."
    )


def _files(folder: Path) -> list[Path]:
    """Return all files below a folder but what is being written or locks it."""
    found = (Path(within) / name for within, _, names in os.walk(folder) for name in names)
    hidden = (path for path in found if path.is_file() and not path.is_symlink())
    return sorted(path for path in hidden if not path.name.startswith(".") and path.name != "lock")


def _compare(path: Path, digest: str) -> None:
    """Compare a file with its hash.

    Raises:
        UserError: it is missing, cannot be read or is another one.
    """
    try:
        found = file_sha256(path)
    except FileNotFoundError:
        raise UserError(f"{path} is missing: {ADVICE}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): {ADVICE}") from error
    if found != digest:
        raise UserError(f"{path} is not as it was backed up: {ADVICE}")
