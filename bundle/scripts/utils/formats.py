"""The formats of what is kept for years: a number rises once an earlier release could not read what is written.

``tests/bundle/test_releases.py`` opens what each release has written with the present code.
"""

from __future__ import annotations

from pathlib import Path

from scripts.utils.errors import UserError

RUN, VERSION, QUEUE, BACKUP = 1, 1, 1, 1


def require_known(path: str | Path, found: int, known: int) -> None:
    """Stop before what a later release has written.

    Args:
        path: what was read.
        found: the number of its format.
        known: the highest that this release reads.

    Raises:
        UserError: it is higher.
    """
    if found > known:
        raise UserError(
            f"{path} was written by a later release, in format {found}, and this one reads up to {known}: "
            "install that release"
        )
