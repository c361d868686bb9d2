"""The images of a data set that a backbone is pretrained on."""

from __future__ import annotations

from scripts.learning.sources.source import Source
from scripts.learning.tasks.planned import PlannedTasks
from scripts.learning.tasks.task import Task
from scripts.utils.errors import UserError

TESTS = "images that test the data set"


def plan_pretraining(source: Source) -> PlannedTasks:
    """Put all images of a data set but those that test it into one task.

    Args:
        source: reads the data set.

    Raises:
        UserError: where there are fewer than two, or they carry several findings.
    """
    groups = source.groups()
    if any(group.several for group in groups):
        raise UserError("pretraining is watched by one class an image: leave '--source#labels many' out")
    classes = tuple(dict.fromkeys(name for group in groups for name in group.classes))
    items = [
        {**item, "label": classes.index(name)}
        for group in groups
        for part in (group.train, group.validation)
        for name, images in part.items()
        for item in images
    ]
    if len(items) < 2:
        raise UserError("there are fewer than two images to pretrain on: give a folder with more")
    left_out: dict[str, list[str]] = {}
    for group in groups:
        for reason, files in group.left_out.items():
            left_out.setdefault(reason, []).extend(files)
        for items_of_class in group.test.values():
            left_out.setdefault(TESTS, []).extend(item["image"] for item in items_of_class)
    task = Task("pretraining", classes, 0, tuple(items), ())
    return PlannedTasks((task,), {reason: tuple(files) for reason, files in left_out.items()})
