"""Say when a key on the command line is none of the config's, or has no value.

MONAI takes any key, so that a misspelt one does nothing, and reads one without a value as true.
"""

from __future__ import annotations

import difflib
import json
import logging
import logging.config
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts import bundle_root
from scripts.commands.configs import known_configs
from scripts.commands.given import OWN, given
from scripts.errors import UserError


def top_level_keys(arguments: Sequence[str]) -> list[str]:
    """Return the top-level keys of ``--key``, ``--key#part``, ``--key::part`` and ``--key=value``."""
    return [re.split(r"#|::|=", argument[2:])[0] for argument in arguments if argument.startswith("--")]


def given_keys(arguments: Sequence[str]) -> list[str]:
    """Return the top-level keys of a command line that are none of MONAI's own."""
    return [name for name in top_level_keys(arguments) if name not in OWN]


def unknown_keys(keys: Sequence[str], config: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the keys that the config neither has nor refers to (``@key``), with the keys most like each."""
    text = json.dumps(config)
    unknown = [key for key in keys if key not in config and not re.search(rf"[@%]{re.escape(key)}\b", text)]
    return {key: difflib.get_close_matches(key, list(config), 1) for key in unknown}


def valueless_keys(arguments: Sequence[str], config: Mapping[str, Any]) -> list[str]:
    """Return the keys that are given without a value, though they are no switch of the config's."""
    alone = [
        name[2:]
        for name, following in zip(arguments, [*arguments[1:], "--"], strict=True)
        if name.startswith("--") and following.startswith("--") and "=" not in name
    ]
    return [key for key in alone if key in config and not isinstance(config[key], bool)]


def set_up_logging() -> None:
    """Log as the bundle does, where MONAI found no ``logging.conf``: a run's own config has none beside it."""
    if not logging.getLogger().handlers:
        logging.config.fileConfig(Path(bundle_root(), "configs", "logging.conf"), disable_existing_loggers=False)


def check_keys() -> None:
    """Warn of each key of this process's command line that changes nothing.

    Raises:
        UserError: for a key without a value, and for a method's name without its config.
    """
    from monai.bundle import ConfigParser  # takes seconds, which a command that only starts others can spare

    set_up_logging()
    said = given()
    if said is None or not said.files:
        return
    listed = ConfigParser.load_config_files(list(said.files))
    arguments = sys.argv[2:]
    if alone := valueless_keys(arguments, listed):
        raise UserError(f"--{alone[0]} has no value: write --{alone[0]} VALUE, or leave it out")
    for key, alike in unknown_keys(given_keys(arguments), listed).items():
        hint = f"; did you mean --{alike[0]}?" if alike else ""
        logging.getLogger(__name__).warning("--%s is no key of the config and changes nothing%s", key, hint)
    if "method" in listed:
        check_method(dict(said.values()).get("method", listed["method"]), listed["method"])


def check_method(method: str, described: str) -> None:
    """Refuse a method's name without the method's config: the run would train another one under that name.

    Args:
        method: the name given.
        described: the method that the config files describe.

    Raises:
        UserError: says which methods there are and how to choose one.
    """
    if method == described:
        return
    known = known_configs("methods")
    if method in known:
        raise UserError(
            f"method '{method}' is a config file: add 'configs/methods/{method}.json' to --config_file (it describes "
            f"'{described}' now)"
        )
    raise UserError(
        f"unknown method '{method}': add one of {', '.join(known)} from configs/methods to --config_file, or a file of "
        "your own that sets 'method'"
    )
