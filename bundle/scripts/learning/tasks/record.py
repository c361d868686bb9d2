"""Write down which tasks a run has learnt, and read it again when a later run goes on from there."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from scripts.imaging.transforms.scans import file_of
from scripts.learning.sources.source import Item
from scripts.learning.tasks.task import Task
from scripts.utils.errors import UserError
from scripts.utils.files import TASKS, write_atomically

MEBIBYTE = 2**20


def write_tasks(folder: str | Path, tasks: Sequence[Task]) -> None:
    """Write names, classes, test and validation images of ``tasks``; training images are the memory's business."""
    content = [
        {
            "name": task.name,
            "classes": task.classes,
            "test": [_located(item) for item in task.test],
            "validation": [_located(item) for item in task.validation],
        }
        for task in tasks
    ]
    write_atomically(Path(folder) / TASKS, json.dumps(content, indent=1) + "\n")


def _located(item: Item) -> Item:
    """Return where an image is and what it is, without the patient that it is of."""
    return {"image": item["image"], "label": item["label"]}


def read_tasks(folder: str | Path | None) -> list[Task]:
    """Read the tasks that the run in ``folder`` has learnt; none without a folder.

    Their training images are gone. Test and validation images that can still be found are used again; see
    :func:`testable`.

    Raises:
        UserError: when the folder holds no run.
    """
    if folder is None:
        return []
    path = Path(folder) / TASKS
    try:
        content: list[dict[str, Any]] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} is not the output folder of a run ({error}): give one (key 'previous')") from error
    tasks: list[Task] = []
    for entry in content:
        first = sum(len(task.classes) for task in tasks)
        parts = (tuple(entry.get(part, ())) for part in ("test", "validation"))
        tasks.append(Task(entry["name"], tuple(entry["classes"]), first, (), *parts))
    return tasks


def images_digest(task: Task) -> str:
    """Return a hash of the images of a task, in their order, with their labels and parts, wherever they lie.

    Of a file of more than a megabyte its size, its start and its end are read.
    """
    digest = hashlib.sha256()
    for part in (task.train, task.test, task.validation):
        digest.update(b"part")
        for item in part:
            image = str(item["image"])
            fragment = image.removeprefix(file_of(image))
            digest.update(f"{item['label']} {fragment} {_file_digest(file_of(image))}".encode())
    return digest.hexdigest()


@lru_cache(maxsize=2**16)
def _file_digest(path: str) -> str:
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        content = file.read(MEBIBYTE)
        if size > 2 * MEBIBYTE:
            file.seek(-MEBIBYTE, os.SEEK_END)
        content += file.read(MEBIBYTE)
    return hashlib.sha256(f"{size} ".encode() + content).hexdigest()


def testable(task: Task) -> bool:
    """Say whether all test images of a task are still there."""
    return all(image_exists(item) for item in task.test)


def validation_items(tasks: Iterable[Task]) -> list[Item]:
    """Return the validation images of the tasks that still have all of theirs."""
    return [item for task in tasks if all(map(image_exists, task.validation)) for item in task.validation]


def image_exists(item: Item) -> bool:
    """Say whether the file that holds an image is there."""
    return Path(file_of(item["image"])).is_file()
