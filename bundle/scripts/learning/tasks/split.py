"""The class-incremental split: which classes are learnt when, and what their labels are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from scripts.learning.sources.source import NO_FINDING, Group, Item, refuse_lookalikes
from scripts.learning.tasks.labels import UNKNOWN
from scripts.learning.tasks.task import Task
from scripts.utils.errors import UserError
from scripts.utils.evenly import even_places
from scripts.utils.words import counted

Split = int | Sequence[int] | Sequence[Sequence[str]]
Order = int | Sequence[str]
Part = tuple[str, list[tuple[str, Group]]]


def make_tasks(
    groups: Sequence[Group],
    split: Split | None = None,
    limit: int | None = None,
    previous: Sequence[Task] = (),
    order: Order | None = None,
) -> list[Task]:
    """Divide the classes of a data set into tasks.

    Args:
        groups: the data set, as a source offers it.
        split: ``None`` makes every group a task; a number is the classes a task; a list of numbers
            the sizes of the tasks, which must add up to all classes; a list of lists the names of the classes of each
            task, in label order (classes that it does not name are left out).
        limit: at most this many training images a class, chosen at even distances; ``None`` takes all.
        previous: tasks learnt before. Labels go on counting after their classes.
        order: order of the classes, or, where every group is a task, of the groups: their names, or the seed of a
            shuffle; ``None`` keeps that of the source.

    Returns:
        The previous tasks, unchanged, then the new ones.

    Raises:
        UserError: where the split does not fit the data, a class is in two tasks, under names that look alike too, or
            has no images, or images carry one class in some tasks and several findings in others.
    """
    if limit is not None and limit < 1:
        raise UserError(
            f"planned_tasks#limit is {limit}, but each class needs a training image at least: give 1 or more, or null"
        )
    learnt = [name for task in previous for name in task.classes]
    refuse_lookalikes([*learnt, *(name for group in groups for name in group.classes)], "the tasks")
    kinds = {group.several for group in groups} | {task.has_findings for task in previous}
    if len(kinds) > 1:
        raise UserError(
            "images of some tasks carry one class, those of others several findings: read them all alike (key "
            "'source#labels')"
        )
    tasks = list(previous)
    for name, members in _divide(groups, split, order):
        tasks.append(_task(name, members, tasks, limit))
    return tasks


def _divide(groups: Sequence[Group], split: Split | None, order: Order | None) -> list[Part]:
    """Return name and (class, group) pairs of each new task."""
    if split is None:
        arranged = [groups[position] for position in _positions([group.name for group in groups], order)]
        return [(group.name, [(name, group) for name in group.classes]) for group in arranged]
    found = [(name, group) for group in groups for name in group.classes]
    if not isinstance(split, int) and split and all(part and not isinstance(part, (int, str)) for part in split):
        if order is not None:
            raise UserError(
                "planned_tasks#order is given, but split names the classes of each task already: leave one out"
            )
        return _by_names(found, [[str(name) for name in part] for part in split if not isinstance(part, int)])
    found = [found[position] for position in _positions([name for name, _ in found], order)]
    if isinstance(split, int):
        return _by_sizes(found, _equal_sizes(len(found), split))
    if split and all(isinstance(part, int) for part in split):
        return _by_sizes(found, [int(str(part)) for part in split])
    raise UserError(
        f"split is {split!r}: give null (a task for each data set), the number of classes a task, a list of such "
        "numbers, or a list with a list of class names for each task"
    )


def _positions(names: list[str], order: Order | None) -> list[int]:
    """Return which name stands first, second, ...

    A seed shuffles as class-incremental code bases do since iCaRL (NumPy's legacy generator), so that seed 1993 gives
    the order under which CIFAR-100 results are published: 68, 56, 78, 8, 23, ...
    """
    if order is None:
        return list(range(len(names)))
    if isinstance(order, int):
        return [int(position) for position in np.random.RandomState(order).permutation(len(names))]
    if isinstance(order, str) or sorted(order) != sorted(names):
        raise UserError(
            f"planned_tasks#order is {order!r}, but what is to be ordered is {', '.join(names)}: name each once"
        )
    return [names.index(name) for name in order]


def _equal_sizes(classes: int, size: int) -> list[int]:
    if size < 1 or classes % size:
        raise UserError(
            f"split is {size}, but {counted(classes, 'class', 'classes')} cannot be divided into tasks of {size}: give "
            "a number that divides them, a list of sizes, or --split null for one task"
        )
    return [size] * (classes // size)


def _by_sizes(found: list[tuple[str, Group]], sizes: list[int]) -> list[Part]:
    if min(sizes) < 1 or sum(sizes) != len(found):
        raise UserError(
            f"split {sizes} makes {sum(sizes)} classes, but the data has {len(found)}: "
            "give sizes of at least 1 that add up to all classes"
        )
    ends = [sum(sizes[: number + 1]) for number in range(len(sizes))]
    parts = [found[end - size : end] for end, size in zip(ends, sizes, strict=True)]
    return [(_joined([name for name, _ in part]), part) for part in parts]


def _by_names(found: list[tuple[str, Group]], parts: list[list[str]]) -> list[Part]:
    groups = dict(found)
    unknown = [name for part in parts for name in part if name not in groups]
    if unknown:
        raise UserError(f"split names an unknown class {unknown[0]!r}: the data has {', '.join(groups)}")
    return [(_joined(part), [(name, groups[name]) for name in part]) for part in parts]


def _joined(classes: list[str]) -> str:
    """Name a task after its classes: all of up to three, else the first and how many more."""
    return "+".join(classes) if len(classes) <= 3 else f"{classes[0]}+{len(classes) - 1}"


def _task(name: str, members: list[tuple[str, Group]], earlier: list[Task], limit: int | None) -> Task:
    classes = [member for member, _ in members]
    _refuse_second_use(name, classes, earlier)
    first = sum(len(task.classes) for task in earlier)
    for member, group in members:
        if not group.train.get(member):
            raise UserError(f"class {member!r} of {group.name} has no training images: add some, or leave it out")
    labelled = _with_findings if members[0][1].several else _with_classes
    train = labelled([(member, group, group.train, limit) for member, group in members], first)
    test = labelled([(member, group, group.test, None) for member, group in members], first)
    validation = labelled([(member, group, group.validation, None) for member, group in members], first)
    for label, (member, group) in enumerate(members, start=first):
        if group.several and not any(item["label"][label] == 0 for item in train):
            raise UserError(
                f"every training image of {group.name} has {member!r}: add some without it, or leave it out"
            )
    if not test:
        raise UserError(f"task {name!r} has no test images: add some for its classes {', '.join(classes)}")
    return Task(name, tuple(classes), first, tuple(train), tuple(test), tuple(validation))


Listed = tuple[str, Group, Mapping[str, list[Item]], int | None]
"""A class, the data set it is of, that one's images for a use by class, and the most that are taken of a class."""


def _with_classes(members: Sequence[Listed], first: int) -> list[Item]:
    """Return the images of the classes, whose numbers start at ``first``."""
    return [
        {**item, "label": label}
        for label, (member, _, listed, limit) in enumerate(members, start=first)
        for item in thin(listed.get(member, []), limit)
    ]


def _with_findings(members: Sequence[Listed], first: int) -> list[Item]:
    """Return each image that has one of the findings, or none at all, once, with all that its data set says of it."""
    found: dict[str, Item] = {}
    taken: set[str] = set()
    of_groups = {id(group): (NO_FINDING, group, listed, limit) for _, group, listed, limit in members}
    entries: list[tuple[int | None, Listed]] = [*enumerate(members, start=first)]
    for place, (name, group, listed, limit) in [*entries, *((None, own) for own in of_groups.values())]:
        blank = [UNKNOWN] * first + [0 if other is group else UNKNOWN for _, other, *_ in members]
        for item in listed.get(name, []):
            known = found.setdefault(item["image"], {**item, "label": [*blank]})
            if place is not None:
                known["label"][place] = 1
        taken.update(item["image"] for item in thin(listed.get(name, []), limit))
    return [item for image, item in found.items() if image in taken]


def _refuse_second_use(name: str, classes: list[str], earlier: list[Task]) -> None:
    used = {member: task.name for task in earlier for member in task.classes}
    for number, member in enumerate(classes):
        if member in used or member in classes[:number]:
            raise UserError(
                f"class {member!r} is in two tasks, {used.get(member, name)!r} and {name!r}: "
                "a class is learnt once; rename it or leave it out of the split"
            )


def thin(items: list[Item], limit: int | None) -> list[Item]:
    """Return at most ``limit`` of the items, chosen at even distances; ``None``: all."""
    return items if limit is None else [items[place] for place in even_places(len(items), limit)]
