"""Whether the values of a config are ones that its keys take, and texts stay as they were typed."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from scripts.commands.given import Given
from scripts.commands.key_table import is_expression, quoted, read_keys
from scripts.commands.signatures import Scalars, find_target, parameters, scalars
from scripts.utils.errors import UsageError

if TYPE_CHECKING:
    from monai.bundle import ConfigParser

MISSING = object()
OF_BLOCKS = ("_target_", "_mode_", "_disabled_", "_desc_", "_requires_")
"""What MONAI itself reads in a block that it builds an object from."""


def at(config: Any, place: str) -> Any:
    """Return the value at a place such as ``limits#num_workers``; :data:`MISSING` where there is none."""
    found = config
    for key in place.split("#") if place else ():
        if isinstance(found, Mapping) and key in found:
            found = found[key]
        elif isinstance(found, list) and key.isdecimal() and int(key) < len(found):
            found = found[int(key)]
        else:
            return MISSING
    return found


def scalars_at(config: Mapping[str, Any], place: str) -> Scalars:
    """Return what the argument of an object at a place takes; nothing is known of a place outside an object."""
    parent, _, name = place.rpartition("#")
    target = find_target(_target(at(config, parent))) if parent else None
    return Scalars() if target is None else scalars(target, name)


def _target(block: Any) -> str:
    """Return what a block builds an object from; an empty text where it builds none, or an expression says it."""
    name = block.get("_target_") if isinstance(block, Mapping) else None
    return name if isinstance(name, str) and not is_expression(name) else ""


def check_places(said: Given, config: Mapping[str, Any], listed: Mapping[str, Any]) -> None:
    """Refuse typed places that the object, or the plain block, they are in does not have.

    Args:
        said: the command line.
        config: the config with all that was given.
        listed: the config of the files alone.

    Raises:
        UsageError: names the place, what there is and the nearest name.
    """
    for place, text in said.typed().items():
        parent, _, name = place.rpartition("#")
        takes = _names(parent, at(config, parent), at(listed, parent)) if parent and name not in OF_BLOCKS else None
        if takes is not None and name not in takes and place not in read_keys():
            alike = difflib.get_close_matches(name, takes, 1)
            hint = f"; did you mean --{parent}#{alike[0]}?" if alike else ""
            names = ", ".join(takes) or "nothing"
            raise UsageError(f"--{place} was given {shown(text)}, but {parent} takes {names}{hint}")


def _names(parent: str, block: Any, listed: Any) -> list[str] | None:
    """Return the names that can stand in a block; ``None``: any can."""
    if isinstance(block, Mapping) and "_target_" in block:
        target = find_target(_target(block))
        found = parameters(target) if target is not None else None
        return None if found is None else list(found)
    is_plain = isinstance(listed, Mapping) and "_target_" not in listed
    is_free = parent in (keys := read_keys()) and keys[parent].kind == "any"
    return list(listed) if is_plain and listed and not is_free else None


def shown(text: str | None) -> str:
    """Return what was typed, for a message."""
    return "no value" if text is None else f"'{text}'"


def typed_value(said: Given, config: Mapping[str, Any], place: str) -> Any:
    """Return the value that a typed text has: by the table of keys, by the signature of its object, else as MONAI's.

    Args:
        said: the command line.
        config: has the object that the place is in.
        place: one that was typed.
    """
    text = said.typed()[place]
    if text is None:
        return True
    keys = read_keys()
    return keys[place].read(text) if place in keys else scalars_at(config, place).read(text)


def take_texts(said: Given, parser: ConfigParser) -> bool:
    """Give a config what was typed where MONAI's command line has read something else: ``2019``, ``true``, ``null``.

    Returns:
        Whether that has changed the config, which then is to be parsed anew.

    Raises:
        UsageError: for a text that no config can hold.
    """
    changed = False
    for place in said.typed():
        value, now = typed_value(said, parser.get(), place), at(parser.get(), place)
        if isinstance(value, str) and "#" in value and not is_expression(value):
            raise UsageError(f"--{place} was given '{value}', but MONAI reads # as ::, so give a name without it")
        is_same = now is MISSING or is_expression(value) or (type(now) is type(value) and now == value)
        if not is_same:
            parser[place] = value
            changed = True
    return changed


def check_values(said: Given, config: Mapping[str, Any], listed: Mapping[str, Any]) -> None:
    """Refuse values of the listed keys, and typed arguments of objects, of the wrong type or out of range.

    Args:
        said: the command line.
        config: the config with all that was given.
        listed: the config of the files alone, whose value is the example.

    Raises:
        UsageError: names the key, its value, what it takes and an example.
    """
    typed = said.typed()
    for place, key in read_keys().items():
        value = at(config, place)
        if value is not MISSING and not key.fits(value):
            raise refusal(place, typed, value, key.takes, quoted(key.example))
    for place in typed:
        known = Scalars() if place in read_keys() else scalars_at(config, place)
        known = known if known.kinds or place in read_keys() else like(at(listed, place))
        value = at(config, place)
        if value is not MISSING and not is_expression(value) and not known.fits(value):
            raise refusal(place, typed, value, known.takes, _example(at(listed, place), known))


def like(value: Any) -> Scalars:
    """Return what a place of a plain block takes, as far as its value tells: a switch or a number."""
    kind = "switch" if isinstance(value, bool) else "number" if isinstance(value, int | float) else ""
    return Scalars((kind,), may_be_null=True) if kind else Scalars()


def _example(value: Any, known: Scalars) -> str:
    is_one = isinstance(value, str | int | float) and not is_expression(value) and known.fits(value)
    return quoted(str(value).lower() if isinstance(value, bool) else str(value)) if is_one else ""


def refusal(place: str, typed: Mapping[str, str | None], value: Any, takes: str, example: str) -> UsageError:
    """Return the error to raise for a value that its place does not take."""
    is_typed = typed.get(place) is not None
    said = f"--{place} was given '{typed[place]}'" if is_typed else f"{place} is {value!r} in the config"
    such = f", such as --{place} {example}" if example else ""
    return UsageError(f"{said}: it takes {takes}{such}")


def devices() -> list[str]:
    """Return the names of the devices of this machine that a network can compute on."""
    import torch  # takes seconds

    cuda = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    return ["cpu", *cuda, *(["mps"] if torch.backends.mps.is_available() else [])]


def check_device(config: Mapping[str, Any]) -> None:
    """Refuse a device that is not there.

    Raises:
        UsageError: names those that are.
    """
    name = config.get("device")
    if isinstance(name, str) and not is_expression(name) and not _is_there(name):
        raise UsageError(f"--device was given '{name}', which is not there: it takes one of {', '.join(devices())}")


def _is_there(name: str) -> bool:
    import torch  # takes seconds

    try:
        wanted = torch.device(name)
    except RuntimeError:
        return False
    kinds = {one.split(":")[0] for one in devices()}
    return wanted.type in kinds if wanted.index in (None, 0) else str(wanted) in devices()


def check_backbone(config: Mapping[str, Any]) -> None:
    """Refuse an unknown backbone.

    Raises:
        UsageError: names those that there are, and the nearest.
    """
    name = config.get("backbone")
    if not isinstance(name, str) or is_expression(name):
        return
    from scripts.model.networks.backbones import BACKBONES, TIMM  # takes seconds

    if name not in BACKBONES and not name.startswith(TIMM):
        alike = difflib.get_close_matches(name, list(BACKBONES), 1)
        hint = f"; did you mean {alike[0]}?" if alike else ""
        raise UsageError(
            f"--backbone was given '{name}': it takes one of {', '.join(BACKBONES)}, or {TIMM}<name> of timm's{hint}"
        )
