"""Write down which tasks a run has learnt, and read it again when a later run goes on from there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts.errors import UserError
from scripts.files import write_atomically
from scripts.tasks.task import Item, Task
from scripts.transforms.scans import file_of

FILE = "tasks.json"


def run_folder(root: str, name: str, previous: str | None = None) -> str:
    """Return the default output folder of a run, ``<root>/<name>``; a later run's also names the one before it."""
    return str(Path(root) / (name if previous is None else f"{name}-after-{Path(previous).resolve().name}"))


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
    write_atomically(Path(folder) / FILE, json.dumps(content, indent=1) + "\n")


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
    path = Path(folder) / FILE
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


def testable(task: Task) -> bool:
    """Say whether all test images of a task are still there."""
    return all(image_exists(item) for item in task.test)


def image_exists(item: Item) -> bool:
    """Say whether the file that holds an image is there."""
    return Path(file_of(item["image"])).is_file()
