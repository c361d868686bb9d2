"""The plan: what would be trained, counted and checked before anything is."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scripts.imaging.transforms.reader import read_rgb
from scripts.imaging.transforms.scans import file_of
from scripts.learning.planning.examine import PARTS, Examined, examine
from scripts.learning.planning.warnings import (
    PlanWarning,
    warnings_of_counts,
    warnings_of_images,
    warnings_of_left_out,
    warnings_of_memory,
)
from scripts.learning.sources.source import NOT_COUNTED
from scripts.learning.tasks.checks import Read
from scripts.learning.tasks.labels import numbers_of
from scripts.learning.tasks.planned import PlannedTasks
from scripts.learning.tasks.task import Task


@dataclass(frozen=True)
class ClassPlan:
    """A class: its name, its label, and how many images there are to learn from, to validate and to test with."""

    name: str
    label: int
    train: int
    validation: int
    test: int


@dataclass(frozen=True)
class TaskPlan:
    """A task.

    Args:
        name: its name.
        learnt_before: by the run that this one goes on from.
        classes: its classes, in label order.
        train: images to learn from, each counted once.
        validation: images to validate with.
        test: images to test with.
        images: how many readable images there are of each kind, ``<width>x<height> <mode>`` as stored (of volumes
            ``<depth>x<height>x<width> L``), most first.
        memory_per_class: images of each class learnt so far that the memory may keep after the task.
    """

    name: str
    learnt_before: bool
    classes: tuple[ClassPlan, ...]
    train: int
    validation: int
    test: int
    images: dict[str, int]
    memory_per_class: int


@dataclass(frozen=True)
class Plan:
    """What would be trained.

    Args:
        tasks: in the order of learning.
        files: what becomes of the files of the data set (of an npz file, of its images): how many are for
            ``training``, ``validation`` and ``test``, and how many are left out, by the reason. Of several pictures of
            a file the first says where it is counted.
        warnings: what should be looked at first, the gravest first.
        readable: every image that can be read; where it is.
        seconds: that reading them all took.
    """

    tasks: tuple[TaskPlan, ...]
    files: dict[str, int]
    warnings: tuple[PlanWarning, ...]
    readable: frozenset[str]
    seconds: float


def make_plan(
    planned: PlannedTasks,
    quota: Callable[[int], int],
    image_size: int,
    tiny_class: int,
    imbalance: float,
    read: Read = read_rgb,
) -> Plan:
    """Decode every image once, and say what would be trained. Groups (patients) are counted, never kept.

    Args:
        planned: from :func:`scripts.learning.tasks.plan_tasks`.
        quota: how many images of each class the memory may keep, by the number of classes learnt
            (:meth:`scripts.learning.memory.ExemplarMemory.quota`).
        image_size: the side, in pixels, that images are resized to.
        tiny_class: warn of a class with fewer training images.
        imbalance: warn of a task whose largest class has more than this many times the training images of its
            smallest.
        read: decodes one image, as training will.
    """
    tasks = planned.tasks
    started = time.perf_counter()
    images = examine(tasks, read)
    seconds = time.perf_counter() - started
    return Plan(
        tuple(_task_plan(number, task, images, quota) for number, task in enumerate(tasks)),
        counted_files(planned),
        (
            *warnings_of_images(tasks, images, image_size),
            *warnings_of_left_out(planned.left_out),
            *warnings_of_counts(tasks, tiny_class, imbalance),
            *warnings_of_memory(tasks, quota),
        ),
        frozenset(image.image for image in images if not image.fault),
        seconds,
    )


def counted_files(planned: PlannedTasks) -> dict[str, int]:
    """Return how many files there are of each use and reason; see :class:`Plan`."""
    new = [task for task in planned.tasks if task.train]
    parts = zip(PARTS, zip(*(task.parts for task in new), strict=True), strict=True)
    uses = {part: [item["image"] for items in listed for item in items] for part, listed in parts}
    seen: set[str] = set()
    counts: dict[str, int] = {}
    left_out = {reason: images for reason, images in planned.left_out.items() if reason not in NOT_COUNTED}
    for use, images in {**uses, **left_out}.items():
        found = {image if ".npz#" in image else file_of(image) for image in images} - seen
        counts[use] = len(found)
        seen |= found
    return counts


def _task_plan(number: int, task: Task, images: Sequence[Examined], quota: Callable[[int], int]) -> TaskPlan:
    counts = [Counter(number for item in part for number in numbers_of(item)) for part in task.parts]
    kinds = Counter(
        f"{'x'.join(map(str, image.size))} {image.mode}" for image in images if image.task == number and not image.fault
    )
    return TaskPlan(
        task.name,
        not task.train,
        tuple(
            ClassPlan(name, label, *(count[label] for count in counts))
            for label, name in enumerate(task.classes, task.first)
        ),
        len(task.train),
        len(task.validation),
        len(task.test),
        dict(kinds.most_common()),
        quota(task.first + len(task.classes)),
    )
