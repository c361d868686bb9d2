"""What an object of a config takes: the parameters of its ``_target_``, and whether a typed value fits one."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pydoc import ErrorDuringImport, locate
from typing import Any

from scripts.commands.key_table import is_of, meant

_KINDS: dict[type, str] = {str: "text", bool: "switch", int: "whole", float: "number"}
_NOUNS = {"text": "text", "switch": "true or false", "whole": "a whole number", "number": "a number"}
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@dataclass(frozen=True)
class Scalars:
    """What a parameter takes.

    Attributes:
        kinds: types of the table that it takes; none: nothing is known.
        choices: the literal values that it takes.
        may_be_null: whether it takes null.
        is_open: whether it takes other things that can be typed, too, such as sequences.
    """

    kinds: tuple[str, ...] = ()
    choices: tuple[Any, ...] = ()
    may_be_null: bool = False
    is_open: bool = False

    @property
    def is_text(self) -> bool:
        """Whether nothing but text (or null) is taken, so that text stays as it was typed."""
        return self.kinds == ("text",) and not self.is_open

    def read(self, text: str) -> Any:
        """Return what a text on the command line means for the parameter."""
        kind = "text" if self.is_text else "switch" if self.kinds == ("switch",) else ""
        return meant(text, kind, self.may_be_null)

    def fits(self, value: Any) -> bool:
        """Say whether a typed value is one; what is not known is let through."""
        if self.choices and isinstance(value, str | int | float):
            return value in self.choices
        if not self.kinds or self.is_open or isinstance(value, list | tuple | Mapping):
            return True
        if value is None:
            return self.may_be_null
        return any(is_of(kind, value) for kind in self.kinds)

    @property
    def takes(self) -> str:
        """What is taken, in words."""
        chosen = [f"one of {', '.join(map(str, self.choices))}"] if self.choices else []
        return " or ".join([*chosen, *(_NOUNS[kind] for kind in self.kinds), *(["null"] if self.may_be_null else [])])


@cache
def find_target(name: str) -> Callable[..., Any] | None:
    """Return what a ``_target_`` names: a dotted path, or a name of MONAI's alone; ``None`` where there is no such."""
    from monai.bundle.config_item import ComponentLocator, ConfigComponent  # takes seconds

    if not name:
        return None
    try:
        path = ConfigComponent(config={"_target_": name}, id="", locator=ComponentLocator()).resolve_module_name()
        found = locate(path) if isinstance(path, str) else path
    except (ImportError, ErrorDuringImport):
        return None
    return found if callable(found) else None


def parameters(target: Callable[..., Any]) -> dict[str, inspect.Parameter] | None:
    """Return the parameters that can be named; ``None`` where any can, or they are not known."""
    try:
        listed = inspect.signature(target).parameters
    except (TypeError, ValueError):
        return None
    if any(one.kind is inspect.Parameter.VAR_KEYWORD for one in listed.values()):
        return None
    return {name: one for name, one in listed.items() if one.kind in _NAMED}


def scalars(target: Callable[..., Any], name: str) -> Scalars:
    """Return what a parameter takes by its annotation or, without one that says so, by its default."""
    listed = parameters(target)
    if listed is None or name not in listed:
        return Scalars()
    found = _of_annotation(_annotation(target, listed[name]))
    default = listed[name].default
    if found.kinds or found.choices or type(default) not in _KINDS:
        return found
    kind = _KINDS[type(default)]
    return Scalars(("number",) if kind == "whole" else (kind,), may_be_null=True)  # 1 may stand for 1.0


def _annotation(target: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """Return an annotation; one that is text is resolved alone, since others may name what is not imported."""
    if not isinstance(parameter.annotation, str):
        return parameter.annotation
    function: Any = inspect.unwrap(target.__init__ if inspect.isclass(target) else target)
    holder: Any = types.SimpleNamespace(__annotations__={"it": parameter.annotation})
    try:
        return typing.get_type_hints(holder, globalns=getattr(function, "__globals__", {}))["it"]
    except (NameError, AttributeError, TypeError, SyntaxError):
        return inspect.Parameter.empty


def _of_annotation(annotation: Any) -> Scalars:
    origin = typing.get_origin(annotation)
    members = typing.get_args(annotation) if origin in (typing.Union, types.UnionType) else (annotation,)
    literals = [value for one in members if typing.get_origin(one) is typing.Literal for value in typing.get_args(one)]
    return Scalars(
        kinds=tuple(_KINDS[one] for one in members if one in _KINDS),
        choices=tuple(literals),
        may_be_null=types.NoneType in members or None in members,
        is_open=any(_is_open(one) for one in members),
    )


def _is_open(member: Any) -> bool:
    """Say whether something other than a scalar can be typed for this: a sequence, anything at all."""
    return member is Any or (typing.get_origin(member) not in (None, typing.Literal))
