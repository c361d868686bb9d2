"""What was given on the command line of ``python -m monai.bundle run``: config files, and keys over them."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fire.parser import DefaultParseValue, SeparateFlagArgs

from scripts.commands.key_table import read_keys

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
        words: what stands there without a key.
    """

    files: tuple[str, ...]
    pairs: tuple[tuple[str, str | None], ...]
    words: tuple[str, ...] = ()

    def typed(self) -> dict[str, str | None]:
        """Return the keys of the config with what was typed, the last where one is given twice."""
        return {key: text for key, text in self.pairs if key not in OWN}

    def values(self) -> list[tuple[str, Any]]:
        """Return the keys of the config, with their values: a text as it was typed, the rest as MONAI reads it."""
        keys = read_keys()
        return [
            (key, True if text is None else keys[key].read(text) if key in keys else DefaultParseValue(text))
            for key, text in self.pairs
            if key not in OWN
        ]


def given(arguments: Sequence[str] | None = None) -> Given | None:
    """Read a command line; ``None`` where it is not one of ``monai.bundle run``.

    Args:
        arguments: after the program's name; ``None``: this process's.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] != ["run"]:
        return None
    found = list(_pairs(SeparateFlagArgs(words[1:])[0]))
    pairs = tuple((key, text) for key, text in found if key)
    files = [text for key, text in pairs if key == "config_file" and text is not None]
    alone = tuple(text for key, text in found if not key and text is not None)
    return Given(tuple(as_list(files[-1])) if files else (), pairs, alone)


def _pairs(words: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Yield keys and values as fire reads them, a word without a key under no key."""
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        if not _is_key(word):
            yield "", word
            continue
        key, equals, text = word.lstrip("-").partition("=")
        key = key.replace("-", "_").replace("::", "#")
        if equals:
            yield key, text
        elif waiting and not _is_key(waiting[0]):
            yield key, waiting.pop(0)
        elif key.startswith("no") and key not in OWN:
            yield key[2:], "False"
        else:
            yield key, None


def _is_key(word: str) -> bool:
    """Say whether fire takes a word for a key: it begins with ``--``, or with ``-`` and is no number."""
    return re.match(r"--|-[a-zA-Z]", word) is not None


def as_list(value: str) -> list[str]:
    """Read ``file``, ``file,file`` or ``['file', 'file']`` as MONAI does."""
    parsed = DefaultParseValue(value)
    if not isinstance(parsed, str):
        return [str(file) for file in parsed]
    return [parsed] if Path(parsed).is_file() else parsed.split(",")


def is_train(file: str) -> bool:
    """Say whether a file is the bundle's ``train.json``, whose keys nobody gave."""
    from scripts.commands.configs import TRAIN

    return Path(file).absolute().resolve() == TRAIN.resolve()
