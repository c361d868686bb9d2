"""Opens every image before the training starts, so that a broken one does not end it after hours."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np

from scripts.imaging.decoding.reasons import ImageRefused
from scripts.imaging.transforms.reader import read_rgb
from scripts.learning.sources.source import Item
from scripts.learning.tasks.task import Task
from scripts.utils.errors import UserError
from scripts.utils.looked_on import looked_on

logger = logging.getLogger(__name__)


Read = Callable[[str], np.ndarray]


def readable_tasks(
    tasks: Sequence[Task], check: bool = True, skip_unreadable: bool = False, read: Read = read_rgb
) -> list[Task]:
    """Decode every image of the tasks still to be learnt (a task learnt before has no training images).

    Args:
        tasks: the tasks.
        check: whether to decode at all; without, a broken image ends the training when its turn comes.
        skip_unreadable: leave out what cannot be read, with a warning for each, rather than stop.
        read: decodes one image, as training will.

    Returns:
        The tasks with the images that can be read.

    Raises:
        UserError: as :func:`check_images`; or when unchecked images are to be left out.
    """
    if not check:
        if skip_unreadable:
            raise UserError("tasks#skip_unreadable finds broken images by opening them: leave tasks#check true")
        return list(tasks)
    kept = partial(check_images, skip_unreadable=skip_unreadable, read=read)
    return [_checked(task, kept) if task.train else task for task in tasks]


def _checked(task: Task, kept: Callable[[Sequence[Item]], list[Item]]) -> Task:
    train, test, validation = (tuple(kept(items)) for items in (task.train, task.test, task.validation))
    return replace(task, train=train, test=test, validation=validation)


def check_images(
    items: Sequence[Item], workers: int = 4, skip_unreadable: bool = False, read: Read = read_rgb
) -> list[Item]:
    """Decode every image once.

    Args:
        items: the images to check.
        workers: threads that decode.
        skip_unreadable: leave out what cannot be read, with a warning for each, rather than stop.
        read: decodes one image.

    Returns:
        The readable items, in their order.

    Raises:
        UserError: where images cannot be read and are not to be skipped; it names the first and says how many, with
            the codes of the reasons.
    """
    with ThreadPoolExecutor(workers) as pool:
        faults = list(looked_on(pool.map(partial(_fault, read), items), "Reading", len(items)))
    found = [fault for fault in faults if fault]
    if found and not skip_unreadable:
        counts = Counter(error.reason.value if isinstance(error, ImageRefused) else "unreadable" for error in found)
        codes = ", ".join(f"{code} {count}" for code, count in counts.most_common())
        raise UserError(f"{len(found)} of {len(items)} images cannot be used ({codes}), the first: {found[0]}")
    for fault in found:
        logger.warning("Left out: %s", fault)
    return [item for item, fault in zip(items, faults, strict=True) if not fault]


def _fault(read: Read, item: Item) -> UserError | None:
    """Say what is wrong with an image; ``None`` where nothing is."""
    try:
        read(item["image"])
    except UserError as error:
        return error
    return None
