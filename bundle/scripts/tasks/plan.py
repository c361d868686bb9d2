"""The plan: what would be trained, counted and checked before anything is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scripts.tasks.checks import Read
from scripts.tasks.examine import Examined, examine
from scripts.tasks.plan_warnings import PlanWarning, warnings_of_counts, warnings_of_images, warnings_of_memory
from scripts.tasks.task import Task
from scripts.transforms.reader import read_rgb


@dataclass(frozen=True)
class ClassPlan:
    """A class: its name, its label, and how many images there are to learn from and to test with."""

    name: str
    label: int
    train: int
    test: int


@dataclass(frozen=True)
class TaskPlan:
    """A task.

    Args:
        name: its name.
        learnt_before: by the run that this one goes on from.
        classes: its classes, in label order.
        images: how many readable images there are of each kind, ``<width>x<height> <mode>`` as stored (of volumes
            ``<depth>x<height>x<width> L``), most first.
        memory_per_class: images of each class learnt so far that the memory may keep after the task.
    """

    name: str
    learnt_before: bool
    classes: tuple[ClassPlan, ...]
    images: dict[str, int]
    memory_per_class: int


@dataclass(frozen=True)
class Plan:
    """What would be trained.

    Args:
        tasks: in the order of learning.
        warnings: what should be looked at first, the gravest first.
        readable: every image that can be read; where it is.
    """

    tasks: tuple[TaskPlan, ...]
    warnings: tuple[PlanWarning, ...]
    readable: frozenset[str]


def make_plan(
    tasks: Sequence[Task],
    quota: Callable[[int], int],
    image_size: int,
    tiny_class: int,
    imbalance: float,
    read: Read = read_rgb,
) -> Plan:
    """Decode every image once, and say what would be trained. Groups (patients) are counted, never kept.

    Args:
        tasks: from :func:`scripts.tasks.split.make_tasks`.
        quota: how many images of each class the memory may keep, by the number of classes learnt
            (:meth:`scripts.memory.ExemplarMemory.quota`).
        image_size: the side, in pixels, that images are resized to.
        tiny_class: warn of a class with fewer training images.
        imbalance: warn of a task whose largest class has more than this many times the training images of its
            smallest.
        read: decodes one image, as training will.
    """
    images = examine(tasks, read)
    return Plan(
        tuple(_task_plan(number, task, images, quota) for number, task in enumerate(tasks)),
        (
            *warnings_of_images(tasks, images, image_size),
            *warnings_of_counts(tasks, tiny_class, imbalance),
            *warnings_of_memory(tasks, quota),
        ),
        frozenset(image.image for image in images if not image.fault),
    )


def _task_plan(number: int, task: Task, images: Sequence[Examined], quota: Callable[[int], int]) -> TaskPlan:
    train, test = (Counter(item["label"] for item in items) for items in (task.train, task.test))
    kinds = Counter(
        f"{'x'.join(map(str, image.size))} {image.mode}" for image in images if image.task == number and not image.fault
    )
    return TaskPlan(
        task.name,
        not task.train,
        tuple(ClassPlan(name, label, train[label], test[label]) for label, name in enumerate(task.classes, task.first)),
        dict(kinds.most_common()),
        quota(task.first + len(task.classes)),
    )
