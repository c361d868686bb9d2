"""What was given on the command line of ``python -m monai.bundle run``: config files, and keys over them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fire.parser import DefaultParseValue

# what `monai.bundle run` itself takes
OWN = (
    *("args_file", "config_file", "final_id", "init_id", "logging_file", "meta_file", "properties_path", "run_id"),
    *("tracking", "workflow_name", "workflow_type"),
)


@dataclass(frozen=True)
class Given:
    """A command line.

    Attributes:
        files: the config files, later ones over earlier ones.
        pairs: keys and values over them, in order; ``None``: without a value.
    """

    files: tuple[str, ...]
    pairs: tuple[tuple[str, str | None], ...]

    def values(self) -> list[tuple[str, Any]]:
        """Return the keys of the config, with their values as MONAI reads them."""
        return [(key, True if text is None else DefaultParseValue(text)) for key, text in self.pairs if key not in OWN]


def given(arguments: Sequence[str] | None = None) -> Given | None:
    """Read a command line; ``None`` where it is not one of ``monai.bundle run``.

    Args:
        arguments: after the program's name; ``None``: this process's.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] != ["run"]:
        return None
    pairs = tuple(_pairs(words[1:]))
    files = [text for key, text in pairs if key == "config_file" and text is not None]
    return Given(tuple(as_list(files[-1])) if files else (), pairs)


def _pairs(words: Sequence[str]) -> list[tuple[str, str | None]]:
    found: list[tuple[str, str | None]] = []
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        if word.startswith("--"):
            key, equals, text = word[2:].partition("=")
            following = not equals and bool(waiting) and not waiting[0].startswith("--")
            found.append((key.replace("::", "#"), text if equals else waiting.pop(0) if following else None))
    return found


def as_list(value: str) -> list[str]:
    """Read ``file`` or ``['file', 'file']`` as MONAI's command line does."""
    parsed = DefaultParseValue(value)
    return [parsed] if isinstance(parsed, str) else list(parsed)


def is_train(file: str) -> bool:
    """Say whether a file is the bundle's ``train.json``, whose keys nobody gave."""
    from scripts.commands.configs import TRAIN

    return Path(file).absolute().resolve() == TRAIN.resolve()
