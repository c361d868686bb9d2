"""What callers may take of a door."""

from __future__ import annotations

from dataclasses import dataclass

from scripts.utils.errors import UserError


@dataclass(frozen=True)
class Limits:
    """Numbers above 0, of each door its own besides these.

    Args:
        max_bytes: of what is sent as one, at most.
        max_held: bytes of all that is being received, at most.

    Raises:
        UserError: for a number that means nothing.
    """

    max_bytes: int
    max_held: int

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise UserError(f"{name} is {value}: give a number above 0 (key 'limits#{name}')")
