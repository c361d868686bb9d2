"""Whether the config files that were listed are what was meant: their order, and the method that they describe."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.commands.configs import CONFIGS, known_configs
from scripts.commands.given import Given
from scripts.commands.key_table import is_expression
from scripts.utils.errors import UsageError

FOLDERS = ("networks", "datasets", "methods", "parts", "published")
"""The folders of the pages, in the order in which they are listed: a later one's values go over an earlier one's."""
SUFFIX = ".yaml"


def inside(file: str | Path) -> Path | None:
    """Return the path of one of the bundle's own configs within ``configs``; ``None`` for another file."""
    path = Path(file).absolute().resolve()
    return path.relative_to(CONFIGS.resolve()) if path.is_relative_to(CONFIGS.resolve()) else None


def check_order(files: Sequence[str]) -> None:
    """Refuse pages in another order than their folders have: one would undo what another one sets.

    Raises:
        UsageError: names two files that change places.
    """
    ranked = [(rank, page) for page in map(inside, files) if page is not None and (rank := _rank(page)) is not None]
    for (before, first), (after, second) in zip(ranked, ranked[1:], strict=False):
        if after < before:
            raise UsageError(
                f"--config_file has {first.as_posix()} before {second.as_posix()}, whose values would go over the "
                f"first one's: list {second.as_posix()} first (train.json, {', '.join(FOLDERS)})"
            )


def _rank(page: Path) -> int | None:
    if page.as_posix() == "train.json":
        return -1
    return FOLDERS.index(page.parts[0]) if page.parts[0] in FOLDERS else None


def check_method(said: Given, listed: Mapping[str, Any]) -> None:
    """Refuse the name of a method, or of a part, whose page is not listed: another one would have that name.

    Args:
        said: the command line.
        listed: the config of its files alone.

    Raises:
        UsageError: says which files to list.
    """
    values = dict(said.values())
    described, parts = listed.get("method"), list(listed.get("parts") or [])
    method, typed = values.get("method", described), values.get("parts", parts)
    if isinstance(method, str) and not is_expression(method) and method != described:
        first, *others = method.split("+")
        _refuse_name("method", method, [] if first == described else [first], [o for o in others if o not in parts])
    if isinstance(typed, list) and typed != parts:
        _refuse_name("parts", ",".join(map(str, typed)), [], [str(one) for one in typed if one not in parts])


def _refuse_name(key: str, given: str, methods: Iterable[str], parts: Iterable[str]) -> None:
    wanted = [*(("methods", name) for name in methods), *(("parts", name) for name in parts)]
    for folder, name in wanted:
        if name not in (known := known_configs(folder)):
            alike = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {alike[0]}?" if alike else ""
            raise UsageError(
                f"--{key} was given '{given}', but configs/{folder} has no {name}{SUFFIX}: it takes the names of "
                f"pages, here {', '.join(known)}{hint}"
            )
    files = " and ".join(f"configs/{folder}/{name}{SUFFIX}" for folder, name in wanted)
    todo = f"list {files} in --config_file and leave --{key} out" if wanted else f"leave --{key} out"
    raise UsageError(f"--{key} was given '{given}', but what it does is in the files that are listed: {todo}")
