"""Names and what they stand for: a name is given once."""

from __future__ import annotations

from collections import UserDict
from typing import TypeVar

from scripts.utils.errors import UserError

T = TypeVar("T")


class Registry(UserDict[str, T]):
    """What can be chosen by name.

    Args:
        what: what it holds, in the singular.
        key: where a name is given.
    """

    def __init__(self, what: str, key: str) -> None:
        super().__init__()
        self.what = what
        self.key = key

    def __setitem__(self, name: str, entry: T) -> None:
        """Add an entry.

        Raises:
            ValueError: when there is another of that name.
        """
        if name in self.data:
            raise ValueError(f"there is a {self.what} '{name}' already")
        self.data[name] = entry

    def find(self, name: str) -> T:
        """Return the entry of that name.

        Raises:
            UserError: when there is none; the message lists what there is.
        """
        if name not in self.data:
            raise UserError(f"unknown {self.what} '{name}': choose one of {', '.join(self.data)} (key '{self.key}')")
        return self.data[name]
