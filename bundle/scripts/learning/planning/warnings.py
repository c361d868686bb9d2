"""What in a plan should be looked at before it is trained: each warning says how often, the first case, what to do."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from scripts.learning.planning.examine import TEST, TRAINING, Examined
from scripts.learning.tasks.labels import has_findings, numbers_of
from scripts.learning.tasks.planned import EXPECTED
from scripts.learning.tasks.record import testable
from scripts.learning.tasks.task import Task


@dataclass(frozen=True)
class PlanWarning:
    """A warning.

    Args:
        kind: a name for programs.
        count: how many there are.
        what: of what, for people.
        first: the first or the worst of them; empty where it must not be named.
        advice: what follows from it, and what to do.
        images: all images that it is about; for copies, those that could go.
    """

    kind: str
    count: int
    what: str
    first: str
    advice: str
    images: tuple[str, ...] = ()


def warnings_of_images(tasks: Sequence[Task], images: Sequence[Examined], image_size: int) -> Iterator[PlanWarning]:
    """Warn of what only the pixels show, and of patients in training and test.

    Args:
        tasks: the tasks.
        images: their images, decoded.
        image_size: the side, in pixels, that images are resized to.
    """
    same: dict[bytes, list[Examined]] = defaultdict(list)
    listed: set[tuple[str, str]] = set()
    for image in images:
        again = (image.split, image.image) in listed and has_findings([image.item])  # of several tasks
        listed.add((image.split, image.image))
        if not image.fault and not again:
            same[image.digest].append(image)
    repeated = [copies for copies in same.values() if len(copies) > 1]
    yield from _unreadable(images)
    yield from _two_labels(repeated, [name for task in tasks for name in task.classes])
    yield from _shared(repeated)
    yield from _group_on_both_sides(images)
    yield from _duplicates(repeated)
    yield from _enlarged(images, image_size)


def warnings_of_left_out(left_out: Mapping[str, Sequence[str]]) -> Iterator[PlanWarning]:
    """Warn of what is neither for training nor for testing or validation, by the reason."""
    for reason, files in left_out.items():
        if reason in EXPECTED:
            continue
        yield PlanWarning(
            "left_out",
            len(files),
            f"{reason}, left out",
            f"the first is {files[0]}",
            "If they should count, convert, rename or move them.",
            tuple(files),
        )


def warnings_of_counts(tasks: Sequence[Task], tiny_class: int, imbalance: float) -> Iterator[PlanWarning]:
    """Warn of classes with few images or none to test with, of uneven tasks, and of tasks that cannot be tested again.

    Args:
        tasks: the tasks.
        tiny_class: the fewest training images a class should have.
        imbalance: how many times the smallest class of a task the largest may be.
    """
    new = [task for task in tasks if task.train]
    yield from _tiny_class(new, tiny_class)
    yield from _imbalance(new, imbalance)
    yield from _untested(new)
    yield from _tests_gone(tasks)


def warnings_of_memory(tasks: Sequence[Task], quota: Callable[[int], int]) -> Iterator[PlanWarning]:
    """Warn of a memory that is neither empty nor large enough for an image of every class.

    Args:
        tasks: the tasks.
        quota: how many images of each class the memory may keep, by the number of classes learnt.
    """
    classes = sum(len(task.classes) for task in tasks)
    if quota(1) and not quota(classes):
        yield PlanWarning(
            "memory",
            classes,
            "classes, more than the images in the memory",
            f"it has room for {quota(1)}",
            f"Training would refuse it: give a memory_size of at least {classes}, or 0 for no memory.",
        )


def _unreadable(images: Sequence[Examined]) -> Iterator[PlanWarning]:
    broken = [image for image in images if image.fault]
    if broken:
        yield PlanWarning(
            "unreadable",
            len(broken),
            "images that cannot be read",
            broken[0].fault,
            "Training would stop at them: mend them, or leave them out with --tasks#skip_unreadable true.",
            tuple(image.image for image in broken),
        )


def _two_labels(repeated: Sequence[list[Examined]], classes: Sequence[str]) -> Iterator[PlanWarning]:
    torn = [copies for copies in repeated if any(image.item["label"] != copies[0].item["label"] for image in copies)]
    if torn:
        one = torn[0][0]
        other = next(image for image in torn[0] if image.item["label"] != one.item["label"])
        names = [" and ".join(repr(classes[n]) for n in numbers_of(image.item)) or "none" for image in (one, other)]
        said = [f"{image.image} is {name} ({image.split})" for image, name in zip((one, other), names, strict=True)]
        yield PlanWarning(
            "two_labels",
            len(torn),
            "pictures with more than one label",
            " and the same picture ".join(said),
            "One of the labels is wrong: decide which, and take the other image out.",
            tuple(image.image for copies in torn for image in copies),
        )


def _shared(repeated: Sequence[list[Examined]]) -> Iterator[PlanWarning]:
    pairs = [
        (image, next(copy for copy in copies if copy.split == TRAINING))
        for copies in repeated
        if any(copy.split == TRAINING for copy in copies)
        for image in copies
        if image.split == TEST
    ]
    if pairs:
        yield PlanWarning(
            "shared",
            len(pairs),
            "test images that are also training images",
            _same(*pairs[0]),
            "The accuracy would look better than it is: keep each picture on one side.",
            tuple(image.image for image, _ in pairs),
        )


def _duplicates(repeated: Sequence[list[Examined]]) -> Iterator[PlanWarning]:
    pairs = [
        (copy, trained[0])
        for copies in repeated
        for trained in [[image for image in copies if image.split == TRAINING]]
        for copy in trained[1:]
    ]
    if pairs:
        yield PlanWarning(
            "duplicates",
            len(pairs),
            "training images that repeat another one",
            _same(*pairs[0]),
            "Each would count twice: take the copies out.",
            tuple(copy.image for copy, _ in pairs),
        )


def _group_on_both_sides(images: Sequence[Examined]) -> Iterator[PlanWarning]:
    seen: dict[str, set[str]] = defaultdict(set)
    for image in images:
        if image.item.get("group") is not None and image.split in (TRAINING, TEST):
            seen[str(image.item["group"])].add(image.split)
    count = sum(len(splits) > 1 for splits in seen.values())
    if count:
        yield PlanWarning(
            "group_on_both_sides",
            count,
            "patients or lesions with images in training and in test",
            "",
            "The accuracy would look better than it is: keep each of them on one side.",
        )


def _enlarged(images: Sequence[Examined], image_size: int) -> Iterator[PlanWarning]:
    small = [image for image in images if not image.fault and min(image.size) < image_size]
    if small:
        least = min(small, key=lambda image: min(image.size))
        yield PlanWarning(
            "enlarged",
            len(small),
            f"images with a side below the {image_size} pixels they would be resized to",
            f"the smallest is {least.image} with {' x '.join(map(str, least.size))}",
            "Enlarging costs time and adds no detail: a smaller image_size may do.",
        )


def _tiny_class(tasks: Sequence[Task], least: int) -> Iterator[PlanWarning]:
    tiny = [(count, name, task.name) for task in tasks for name, count in _sizes(task).items() if count < least]
    if tiny:
        count, name, task = min(tiny, key=lambda entry: entry[0])
        yield PlanWarning(
            "tiny_class",
            len(tiny),
            f"classes with fewer than {least} training images",
            f"the smallest is {name!r} of task {task!r} with {count}",
            "Little can be learnt from so few: collect more, or read their figures with care.",
        )


def _imbalance(tasks: Sequence[Task], most: float) -> Iterator[PlanWarning]:
    uneven = []
    for task in tasks:
        sizes = _sizes(task)
        large, small = max(sizes, key=lambda name: sizes[name]), min(sizes, key=lambda name: sizes[name])
        if sizes[large] > most * sizes[small]:
            said = f"{task.name!r}: {large!r} has {sizes[large]} training images, {small!r} has {sizes[small]}"
            uneven.append((sizes[large] / sizes[small], said))
    if uneven:
        yield PlanWarning(
            "imbalance",
            len(uneven),
            f"tasks whose largest class has more than {most:g} times the training images of the smallest",
            f"the most uneven is {max(uneven)[1]}",
            "The small class would be overlooked: collect more of it, or give --planned_tasks#limit (images a class).",
        )


def _untested(tasks: Sequence[Task]) -> Iterator[PlanWarning]:
    tested = {number for task in tasks for item in task.test for number in numbers_of(item)}
    missing = [
        (name, task.name)
        for task in tasks
        for label, name in enumerate(task.classes, task.first)
        if label not in tested
    ]
    if missing:
        name, task = missing[0]
        yield PlanWarning(
            "untested",
            len(missing),
            "classes without test images",
            f"{name!r} of task {task!r}",
            "Nothing would say how well they are recognised: add some.",
        )


def _tests_gone(tasks: Sequence[Task]) -> Iterator[PlanWarning]:
    gone = [task.name for task in tasks if not task.train and not testable(task)]
    if gone:
        yield PlanWarning(
            "tests_gone",
            len(gone),
            "tasks learnt before whose test images are not all there any more",
            repr(gone[0]),
            "What is forgotten of them could not be measured.",
        )


def _sizes(task: Task) -> dict[str, int]:
    """Return the training images a class, by its name."""
    counts = Counter(number for item in task.train for number in numbers_of(item))
    return {name: counts[label] for label, name in enumerate(task.classes, task.first)}


def _same(one: Examined, other: Examined) -> str:
    return f"{one.image} is the same picture as {other.image}"
