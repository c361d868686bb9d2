"""Refuse what a command line gives and nothing takes, and print what each key takes.

MONAI takes any key, so that a misspelt one does nothing; it reads a key without a value as true, and texts such as 2019
as numbers.
"""

from __future__ import annotations

import difflib
import json
import logging
import logging.config
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts import bundle_root
from scripts.commands.configs import CONFIGS
from scripts.commands.given import Given, given
from scripts.commands.key_table import Key, quoted, read_keys
from scripts.commands.pages import FOLDERS, SUFFIX, check_method, check_order, inside
from scripts.commands.values import check_backbone, check_device, check_places, check_values, shown, take_texts
from scripts.utils.errors import UsageError
from scripts.utils.running import RECORDED, running_parser

if TYPE_CHECKING:
    from monai.bundle import ConfigParser

STRUCTURE = ("_meta_", "imports", "initialize", "run", "finalize", RECORDED)
"""Keys that MONAI, or a run's own config, has."""
TRACKING = ("tracking_uri", "experiment_name", "run_name", "save_execute_config")
"""Keys of MONAI's ``--tracking``."""
SEE = "dynammo keys [WORD] lists the keys"


def top_level_keys(arguments: Sequence[str]) -> list[str]:
    """Return the top-level keys of ``--key``, ``--key#part``, ``--key::part`` and ``--key=value``."""
    return [re.split(r"#|::|=", argument[2:])[0] for argument in arguments if argument.startswith("--")]


def unknown_keys(keys: Iterable[str], config: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the keys that the config neither has nor refers to (``@key``), with the keys most like each."""
    text = json.dumps(config, default=str)
    unknown = [key for key in keys if key not in config and not re.search(rf"[@%]{re.escape(key)}\b", text)]
    return {key: difflib.get_close_matches(key, list(config), 1) for key in unknown}


def set_up_logging() -> None:
    """Log as the bundle does, where MONAI found no ``logging.conf``: a run's own config has none beside it."""
    if not logging.getLogger().handlers:
        logging.config.fileConfig(Path(bundle_root(), "configs", "logging.conf"), disable_existing_loggers=False)


def check_keys() -> None:
    """Check this process's command line, the first step of every ``run``; another program's is not looked at.

    Raises:
        SystemExit: 2, after one line on stderr, where something given cannot be meant.
    """
    set_up_logging()
    said = given()
    if said is None:
        return
    try:
        check(said, running_parser())
    except UsageError as error:
        print(f"Error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_status) from error  # which MONAI, that wraps exceptions, lets through


def check(said: Given, parser: ConfigParser) -> None:
    """Check a command line, and give the config the texts as they were typed.

    Args:
        said: the command line.
        parser: has the config with all that was given.

    Raises:
        UsageError: for the first thing that cannot be meant: files in another order than they work in, a word without
            a key, a key without a value, an unknown key or argument of an object, a value that its key does not take, a
            device that is not there, a method or a part whose page is not listed.
    """
    check_order(said.files)
    listed = parser.load_config_files(list(said.files))
    if said.files:
        _check_words(said, listed)
        check_has_value(said, listed)
        check_typed(said, listed)
        _check_files(said, listed)
    check_places(said, parser.get(), listed)
    if take_texts(said, parser):
        parser.parse(reset=True)
    check_values(said, parser.get(), listed)
    check_device(parser.get())
    check_backbone(parser.get())
    if said.files:
        check_method(said, listed)


def _check_words(said: Given, listed: Mapping[str, Any]) -> None:
    """Refuse words without a key, which MONAI takes for what is to be run, begun and ended with."""
    for word in said.words:
        if word not in listed:
            raise UsageError(f"'{word}' stands without a key: write --KEY VALUE; {SEE}")


def check_has_value(said: Given, listed: Mapping[str, Any]) -> None:
    """Refuse a typed key without a value, unless it is a switch."""
    keys = read_keys()
    for key, text in said.typed().items():
        is_known = key in listed or key in keys
        is_switch = isinstance(listed.get(key), bool) or (key in keys and keys[key].kind == "switch")
        if text is None and is_known and not is_switch:
            raise UsageError(f"--{key} has no value: write --{key} VALUE, or leave it out")


def check_typed(said: Given, listed: Mapping[str, Any]) -> None:
    """Refuse typed top-level keys that none of the listed files has or refers to."""
    typed, keys = said.typed(), read_keys()
    allowed = (*STRUCTURE, *(TRACKING if any(key == "tracking" for key, _ in said.pairs) else ()))
    wanted = {key.split("#")[0]: key for key in typed}
    asked = {**listed, "_typed_": [text for text in typed.values() if text is not None]}
    for key in unknown_keys([key for key in wanted if key not in allowed], asked):
        start = f"--{wanted[key]} was given {shown(typed[wanted[key]])}, but "
        what = "no file in --config_file has this key" if key in keys else "there is no such key"
        raise UsageError(f"{start}{what}{_nearest(key, listed)}")


def _nearest(key: str, names: Iterable[str]) -> str:
    """Say which key was meant, and what it takes."""
    top = list(names)
    places = [place for place in read_keys() if place.split("#")[0] in top]
    alike = difflib.get_close_matches(key, [*top, *places], 1)
    if not alike:
        return f"; {SEE}"
    known = read_keys().get(alike[0])
    takes = f" (it takes {known.takes}), such as --{known.place} {quoted(known.example)}" if known else ""
    return f": did you mean --{alike[0]}{takes}?"


def _check_files(said: Given, listed: Mapping[str, Any]) -> None:
    """Refuse keys of files of one's own that none of the bundle's configs has and nothing refers to."""
    own = {key: file for file in said.files if inside(file) is None for key in top_level_names(file)}
    left = unknown_keys([key for key in own if key not in (*STRUCTURE, *read_keys())], {"": listed})
    known = bundle_keys() if left else set()
    for key in left:
        if key not in known:
            names = [name for name in (*listed, *known) if name not in left]
            raise UsageError(f"{own[key]} sets '{key}', but there is no such key{_nearest(key, names)}")


def top_level_names(file: str | Path) -> list[str]:
    """Return the top-level keys that a config file sets, in part or whole."""
    from monai.bundle import ConfigParser  # takes seconds

    return [key.removeprefix("+").replace("::", "#").split("#")[0] for key in ConfigParser.load_config_file(file)]


def bundle_keys() -> set[str]:
    """Return the top-level keys of all the bundle's configs."""
    pages = (page for folder in FOLDERS for page in (CONFIGS / folder).rglob(f"*{SUFFIX}"))
    files = [*(file for file in CONFIGS.glob("*.json") if file.name != "metadata.json"), *pages]
    return {key for file in files for key in top_level_names(file)}


def named(words: Sequence[str]) -> list[Key]:
    """Return keys: all, or those that are called like a word, else those with it in their place or description.

    Raises:
        UsageError: for a word that no key has; it names the nearest.
    """
    keys = read_keys()
    found: dict[str, Key] = {}
    for word in (word.lstrip("-").replace("::", "#") for word in words):
        described = {place: key for place, key in keys.items() if word.lower() in f"{place} {key.effect}".lower()}
        own = {word: keys[word]} if word in keys else described
        if not own:
            alike = difflib.get_close_matches(word, list(keys), 1)
            hint = f"did you mean {alike[0]}?" if alike else "leave it out to see all keys"
            raise UsageError(f"'{word}' is no key, and no key's description has it: {hint}")
        found |= own
    return list((found or keys).values())
