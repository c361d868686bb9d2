"""Read a JSON file that may be damaged or hostile: what it should hold, or one line that says what is wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from scripts.utils.errors import UserError

TEXT = {"type": "string", "maxLength": 1000}
TEXTS = {"type": "array", "items": TEXT}
FRACTION = {"type": "number", "minimum": 0, "maximum": 1}


def read_json(path: str | Path, schema: Mapping[str, Any], advice: str) -> Any:
    """Read a JSON file and compare it with what it should hold.

    Args:
        path: the file.
        schema: a JSON schema (draft 2020-12). Numbers must be finite, whatever it says.
        advice: what to do about a file that is not as it should be.

    Raises:
        UserError: when it cannot be read, or differs from the schema; it names the file and the place.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as problem:
        raise UserError(f"{path} cannot be read ({problem.strerror or problem}): {advice}") from problem
    return check_json(content, schema, path, advice)


class JsonFiles:
    """Reads JSON files of one kind, each once until it changes: until its time or its size is another.

    What is returned is shared: it is not to be changed.

    Args:
        schema, advice: see :func:`read_json`.
        most: files that are remembered.
    """

    def __init__(self, schema: Mapping[str, Any], advice: str, most: int) -> None:
        @lru_cache(most)
        def read(path: Path, modified: int, size: int) -> Any:
            return read_json(path, schema, advice)

        self._read = read

    def __call__(self, path: Path) -> Any:
        """Return what a file holds.

        Raises:
            UserError: as :func:`read_json`.
        """
        try:
            state = path.stat()
        except OSError:
            return self._read(path, 0, 0)  # which says why
        return self._read(path, state.st_mtime_ns, state.st_size)


def check_json(content: bytes, schema: Mapping[str, Any], path: str | Path, advice: str) -> Any:
    """Return what JSON holds, once it is compared with what it should hold; see :func:`read_json`."""
    try:
        found = json.loads(content.decode(), parse_constant=_refuse)
        error = best_match(Draft202012Validator(schema).iter_errors(found))
    except (ValueError, RecursionError) as problem:
        raise UserError(f"{path} is not valid JSON ({_short(str(problem))}): {advice}") from problem
    if error is None:
        return found
    if error.validator == "required":
        raise UserError(f"{path} lacks {error.message.partition(' is a required')[0]}: {advice}")
    place = "#".join(str(key) for key in error.absolute_path)
    raise UserError(
        f"{path} is not as it should be, {_short(f'{place}: {error.message}'.removeprefix(': '))}: {advice}"
    )


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")


def _short(text: str) -> str:
    """Return a text without line ends, and cut in the middle where it is long."""
    line = " ".join(text.split())
    return line if len(line) <= 200 else f"{line[:100]} ... {line[-90:]}"
