"""The keys that a person types, what each takes and what it does: ``configs/keys.yaml``, read."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from fire.parser import DefaultParseValue

from scripts import bundle_root

TABLE = Path(bundle_root()) / "configs" / "keys.yaml"
EXPRESSIONS = ("$", "@", "%")
"""How a value begins that says where to find the value."""
_NOUNS = {"text": "text", "whole": "a whole number", "number": "a number", "switch": "true or false", "list": "a list"}
_NOTHING = ("null", "none")


def is_expression(value: Any) -> bool:
    """Say whether a value is an expression or a reference, known once the config is resolved."""
    return isinstance(value, str) and value.startswith(EXPRESSIONS)


def is_of(kind: str, value: Any) -> bool:
    """Say whether a value is of a type of the table; a whole number is a number, true and false are none."""
    match kind:
        case "text":
            return isinstance(value, str)
        case "switch":
            return isinstance(value, bool)
        case "whole":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        case "list":
            return isinstance(value, list | tuple)
    return True


def plain_text(text: str) -> str:
    """Return what was typed, without the quotes that keep a text from being read as a number."""
    read = DefaultParseValue(text)
    is_quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    return read if is_quoted and isinstance(read, str) else text


def meant(text: str, kind: str, may_be_null: bool) -> Any:
    """Return what a text on the command line means for a type of the table.

    MONAI's command line reads ``2019``, ``12.10`` and ``a,b`` as numbers and tuples wherever they stand.

    Args:
        text: as it was typed.
        kind: the type.
        may_be_null: whether ``null`` and ``None`` mean nothing, rather than a text.
    """
    read = DefaultParseValue(text)
    if is_expression(read):
        return read
    if may_be_null and text.lower() in _NOTHING:
        return None
    if kind == "text":
        return plain_text(text)
    if kind == "switch" and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if kind == "list":
        return list(read) if isinstance(read, tuple) else read
    return read


@dataclass(frozen=True)
class Key:
    """A key.

    Attributes:
        place: as it is typed.
        kind: its type.
        effect: what it does.
        why: its default, and why it is that.
        example: a value, as it is typed.
        may_be_null: whether it may be null.
        low: the least value; ``None``: there is none.
        high: the largest value.
        above: values are above this.
        below: values are below this.
        unit: of its values.
        choices: the texts that it takes; none: any.
        of: the type of a list's items.
        words: what it takes, in words, where the rest does not say it.
    """

    place: str
    kind: str
    effect: str
    why: str
    example: str
    may_be_null: bool = False
    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None
    unit: str = ""
    choices: tuple[str, ...] = ()
    of: str = ""
    words: str = ""

    @property
    def takes(self) -> str:
        """What it takes, in words."""
        if self.words:
            return self.words
        noun = f"one of {', '.join(self.choices)}" if self.choices else _NOUNS[self.kind]
        items = {"text": " of texts", "number": " of numbers"}.get(self.of, "")
        unit = f" ({self.unit})" if self.unit else ""
        return f"{noun}{items}{self._bounds()}{unit}{' or null' if self.may_be_null else ''}"

    def _bounds(self) -> str:
        low = f" from {self.low:.12g}" if self.low is not None else ""
        low = f" above {self.above:.12g}" if self.above is not None else low
        high = f" to {self.high:.12g}" if self.high is not None else ""
        high = f"{' and' if low else ''} below {self.below:.12g}" if self.below is not None else high
        return low + high

    def read(self, text: str) -> Any:
        """Return what a text on the command line means for this key."""
        value = meant(text, self.kind, self.may_be_null)
        if self.of == "text" and isinstance(value, str | int | float | list) and not is_expression(value):
            return value if text[:1] in "[(" else plain_text(text).split(",")  # CT1,2019 are two texts
        return value

    def fits(self, value: Any) -> bool:
        """Say whether a literal value is one that this key takes; what is to be resolved or built is let through."""
        if is_expression(value) or (isinstance(value, Mapping) and "_target_" in value):
            return True
        if value is None:
            return self.may_be_null or self.kind == "any"
        if not is_of(self.kind, value) or (self.choices and value not in self.choices):
            return False
        if self.kind == "list":
            return all(is_expression(item) or is_of(self.of, item) for item in value)
        return self.kind not in ("whole", "number") or self._is_within(value)

    def _is_within(self, value: float) -> bool:
        return (
            (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )


@cache
def read_keys() -> dict[str, Key]:
    """Return the keys by their places, in the order of ``configs/keys.yaml``."""
    content = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    return {place: _key(place, entry) for place, entry in content.items()}


def _key(place: str, entry: Mapping[str, Any]) -> Key:
    low, high = entry.get("range", (None, None))
    return Key(
        place=place,
        kind=entry["type"],
        effect=entry["effect"],
        why=entry["why"],
        example=entry["example"],
        may_be_null=entry.get("null", False),
        low=low,
        high=high,
        above=entry.get("above"),
        below=entry.get("below"),
        unit=entry.get("unit", ""),
        choices=tuple(entry.get("choices", ())),
        of=entry.get("of", ""),
        words=entry.get("takes", ""),
    )


def reference(keys: Iterable[Key]) -> str:
    """Return a table in Markdown of keys."""
    head = "| key | takes | effect | default | example |\n|---|---|---|---|---|"
    rows = [f"| `{key.place}` | {key.takes} | {key.effect} | {key.why} | `{_typed(key)}` |" for key in keys]
    return "\n".join([head, *rows])


def _typed(key: Key) -> str:
    return f"--{key.place} {quoted(key.example)}"


def quoted(example: str) -> str:
    """Return a value as it is typed in a shell: in double quotes where it needs some."""
    return example if all(sign.isalnum() or sign in "_-./:@" for sign in example) else f'"{example}"'
