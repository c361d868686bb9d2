"""Libraries that few need: an extra of the package each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from scripts.utils.errors import UserError


@contextmanager
def of_extra(extra: str, what: str) -> Iterator[None]:
    """Import a library of an extra in here.

    Args:
        extra: its name in ``setup.cfg``.
        what: needs which library, in words.

    Raises:
        UserError: where it is not installed; says how to.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise UserError(f"{what}: pip install 'dynammo-bundle[{extra}]', or do without it") from error
