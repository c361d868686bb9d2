"""Copies of the images of a run that name nobody, to be given on."""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.commands.found import TABLE
from scripts.commands.take_over import parser_of
from scripts.deploy.dicom.deidentified import Deidentifier, is_free_of_text
from scripts.deploy.service.images import encoded
from scripts.deploy.versions.store import VersionStore
from scripts.imaging.decoding.kinds import kind_of
from scripts.imaging.transforms import read_rgb, read_volume
from scripts.imaging.transforms.reader import is_volume
from scripts.imaging.transforms.scans import file_of
from scripts.learning.handlers.checkpoint import read_checkpoint, task_differences
from scripts.learning.tasks import Task
from scripts.learning.tasks.labels import require_one_class
from scripts.utils.errors import UserError
from scripts.utils.files import CHECKPOINT, cannot_write, require_empty, write_atomically, write_csv
from scripts.utils.looked_on import looked_on
from scripts.utils.sums import file_sha256, sha256
from scripts.utils.words import counted

COLUMNS = ("path", "label", "split", "group")
SPLITS = ("train", "val", "test")
"""What :attr:`scripts.learning.tasks.Task.parts` are called in the table."""


@dataclass(frozen=True)
class _Image:
    """What is copied: a DICOM file, whichever of its frames were learnt from, or the pixels of another image."""

    reference: str
    label: str
    split: str
    group: str

    @property
    def file(self) -> Path:
        return Path(file_of(self.reference))

    @property
    def is_dicom(self) -> bool:
        return kind_of(str(self.file)) == "dicom"


def deidentify(run: Path, folder: Path, store: VersionStore, burned_in: bool) -> str:
    """Copy the images that a run has learnt from, validated and tested with, under new names, and a table of them.

    Each copy is an event of the store's audit log: the hashes of file and copy. The table is written last.

    Args:
        run: a run's folder.
        folder: for the copies; empty, or not there.
        store: whose audit log is written.
        burned_in: whether to copy what does not say that its pixels hold no text: no picture does.

    Returns:
        What was done, in one line.

    Raises:
        UserError: dicognito is not installed, the folder is not empty, the run or its images are not as they were, or
            images may hold text; nothing is copied then.
    """
    deidentifier = Deidentifier()
    require_empty(folder, "the copies")
    images = list(_images(_learnt(run)))
    doubtful = [] if burned_in else [image for image in images if not (image.is_dicom and is_free_of_text(image.file))]
    if doubtful:
        raise UserError(
            f"{len(doubtful)} of {counted(len(images), 'image')} may show a name, the first {doubtful[0].file}: "
            "BurnedInAnnotation is not NO. Look at them, then add --burned_in"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise cannot_write(folder, error) from error
    rows = [COLUMNS]
    for image in looked_on(images, "Copying", len(images)):
        suffix, content = (".dcm", deidentifier.copy(image.file)) if image.is_dicom else _pixels(image.reference)
        name = f"{secrets.token_hex(16)}{suffix}"
        hashes = {"source": file_sha256(image.file), "copy": sha256(content)}
        with store.audit.entry("de-identified copy", hashes, store.by):
            write_atomically(folder / name, content)
        rows.append((name, image.label, image.split, image.group))
    write_csv(folder / TABLE, rows)
    return f"{counted(len(images), 'copy', 'copies')} and {TABLE} are in {folder}; {store.audit.path} has each by hash."


def _learnt(run: Path) -> Sequence[Task]:
    """Return the tasks whose training images are the run's own, as it learnt them."""
    if not (run / CHECKPOINT).is_file():
        raise UserError(f"no {CHECKPOINT} in {run}: give the output folder of a run")
    content = read_checkpoint(run / CHECKPOINT)
    tasks: list[Task] = parser_of(run).get_parsed_content("tasks")
    learnt = tasks[: len(content["tasks"])]
    if changed := task_differences(content["tasks"], content["images"], learnt):
        raise UserError(f"the images are not those that {run} has learnt from ({'; '.join(changed)}): restore them")
    require_one_class((item for task in learnt for item in task.test), "deidentify")
    return [task for task in learnt if task.train]


def _images(tasks: Sequence[Task]) -> Iterator[_Image]:
    groups: dict[str, str] = defaultdict(lambda: secrets.token_hex(8))
    seen: set[str] = set()
    for task in tasks:
        for split, items in zip(SPLITS, task.parts, strict=True):
            for item in items:
                group = groups[item.get("group") or item["image"]]
                image = _Image(item["image"], task.classes[item["label"] - task.first], split, group)
                source = str(image.file) if image.is_dicom else image.reference
                if source not in seen:
                    seen.add(source)
                    yield image


def _pixels(reference: str) -> tuple[str, bytes]:
    return encoded(read_volume(reference) if is_volume(reference) else read_rgb(reference))
