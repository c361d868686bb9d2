"""Commands that take any key of the configs beside options of their own, as ``--key value`` or ``--key=value``."""

from __future__ import annotations

import re
from typing import Any

from typer.core import TyperCommand

KEYS = "keys"
"""Where a command finds the words of the keys, in the ``meta`` of its context."""


class KeyedCommand(TyperCommand):
    """Takes the words of keys out of a command line before its own options and arguments are read."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Divide the words: ``--word`` that is no option of the command is a key, and what follows its value."""
        own = {name: getattr(option, "is_flag", False) for option in self.get_params(ctx) for name in option.opts}
        rest, keys, waiting = list[str](), list[str](), list(args)
        while waiting:
            word = waiting.pop(0)
            name, equals, _ = word.partition("=")
            taken = keys if is_key(word) and name not in own else rest
            taken.append(word)
            takes_value = taken is keys or own.get(name) is False
            if takes_value and not equals and waiting and not is_key(waiting[0]) and is_key(word):
                taken.append(waiting.pop(0))
        ctx.meta[KEYS] = keys
        return super().parse_args(ctx, rest)


def is_key(word: str) -> bool:
    """Say whether a word is an option or a key rather than a value, which may be a number below 0."""
    return re.match(r"--?[a-zA-Z]", word) is not None
