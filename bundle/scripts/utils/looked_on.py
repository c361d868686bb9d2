"""Say how far a long loop is."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

from scripts.utils.words import counted

T = TypeVar("T")

SILENT = 1.0
"""Seconds in which nothing is said: many loops are over by then."""
BETWEEN = 10.0
"""Seconds between two lines where there is no terminal."""

logger = logging.getLogger(__name__)


def looked_on(work: Iterable[T], what: str, count: int, unit: str = "image") -> Iterator[T]:
    """Yield what a loop goes over: a bar shows how far it is, or a line now and then where there is no terminal.

    Args:
        work: what the loop goes over.
        what: is done with it, such as ``Reading``.
        count: of it all.
        unit: what one is called.
    """
    if sys.stderr.isatty():
        yield from tqdm(work, what, count, leave=False, delay=SILENT, unit=unit)
        return
    said = time.monotonic() + SILENT - BETWEEN
    for number, one in enumerate(work):
        if time.monotonic() - said >= BETWEEN:
            said = time.monotonic()
            logger.info("%s %s%s", what, counted(count, unit), f": {number:,} done" if number else "")
        yield one
