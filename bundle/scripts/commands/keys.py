"""Say when a key on the command line is none of the config's, or has no value.

MONAI takes any key, so that a misspelt one does nothing, and reads one without a value as true.
"""

from __future__ import annotations

import difflib
import json
import logging
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from fire.parser import DefaultParseValue

from scripts.errors import UserError

# what `monai.bundle run` itself takes
OWN = (
    "args_file",
    "config_file",
    "final_id",
    "init_id",
    "logging_file",
    "meta_file",
    "properties_path",
    "run_id",
    "tracking",
    "workflow_name",
    "workflow_type",
)


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


def check_keys() -> None:
    """Warn of each key of this process's command line that changes nothing.

    Raises:
        UserError: for a key without a value.
    """
    from monai.bundle import ConfigParser  # takes seconds, which a command that only starts others can spare

    files = [argument for name, argument in zip(sys.argv, sys.argv[1:], strict=False) if name == "--config_file"]
    if not files:
        return
    listed = ConfigParser.load_config_files(_as_list(files[-1]))
    if alone := valueless_keys(sys.argv[1:], listed):
        raise UserError(f"--{alone[0]} has no value: write --{alone[0]} VALUE, or leave it out")
    for key, alike in unknown_keys(given_keys(sys.argv[1:]), listed).items():
        hint = f"; did you mean --{alike[0]}?" if alike else ""
        logging.getLogger(__name__).warning("--%s is no key of the config and changes nothing%s", key, hint)


def _as_list(value: str) -> list[str]:
    """Read ``file`` or ``['file', 'file']`` as MONAI's command line does."""
    parsed = DefaultParseValue(value)
    return [parsed] if isinstance(parsed, str) else list(parsed)
