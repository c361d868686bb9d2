"""From a data set to the tasks of a run: test and validation images set apart, classes divided."""

from __future__ import annotations

from scripts.tasks.holdout import HoldOut, KeepForValidation
from scripts.tasks.record import read_tasks
from scripts.tasks.split import Order, Split, make_tasks
from scripts.tasks.task import Source, Task


def plan_tasks(
    source: Source,
    list_file: str,
    split: Split | None = None,
    order: Order | None = None,
    limit: int | None = None,
    previous: str | None = None,
    test_fraction: float = 0.2,
    validation_fraction: float = 0.0,
    seed: int = 0,
) -> list[Task]:
    """Return the tasks of a run; no image is opened.

    Args:
        source: reads the data set.
        list_file: says which images test, where the data set does not; see :class:`scripts.tasks.HoldOut`.
        split: see :func:`scripts.tasks.make_tasks`.
        order: of the classes; see :func:`scripts.tasks.make_tasks`.
        limit: at most this many training images a class; ``None`` takes all.
        previous: folder of the run whose tasks come first; ``None``: there is none.
        test_fraction: share of the images of each class to test with, where there are no test images.
        validation_fraction: share of the training images of each class to validate with, where there are none.
        seed: of what is set apart.

    Raises:
        UserError: as the three.
    """
    divided = HoldOut(source, list_file, test_fraction, seed)
    return make_tasks(KeepForValidation(divided, validation_fraction, seed), split, limit, read_tasks(previous), order)
