"""Every command of the runbook is one that exists, with the words and keys that it takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from scripts.commands.app import everyone
from scripts.commands.key_table import read_keys
from scripts.commands.queue import _parser as queue_parser
from scripts.commands.users import _parser as users_parser
from scripts.commands.versions import _parser as versions_parser

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "docs/hospital" / f"{name}.md" for name in ("runbook", "backup", "versions")]
PARSERS = {"queue": queue_parser, "users": users_parser, "versions": versions_parser}
NESTED = {"log#as_json"}


def lines() -> list[str]:
    """Return the commands of the pages that are written out in full."""
    found = [line for page in PAGES for line in re.findall(r"^ *dynammo (.*)$", page.read_text(), re.M)]
    return [line for line in found if "|" not in line and "..." not in line]


@pytest.mark.parametrize("line", dict.fromkeys(lines()))
def test_a_command_takes_these_words(line: str) -> None:
    name, *words = shlex.split(line, comments=" #" in line)
    words = ["1" if word == "NUMBER" else word for word in words]
    if name in PARSERS:
        PARSERS[name]().parse_args(words)  # it exits where it does not understand
        return
    command = get_command(everyone).commands[name]  # type: ignore[attr-defined]
    options = {option for parameter in command.params for option in parameter.opts}
    typed = [word for word in words if word.startswith("--")]
    keys = {f"--{key}" for key in read_keys().keys() | NESTED}
    assert [word for word in typed if word not in options and (word not in keys or "--keys" in options)] == []


def test_the_runbook_has_a_step_for_each_alert() -> None:
    text = PAGES[0].read_text()
    assert all(alert in text for alert in ("NodeStandsStill", "QueueIsOld", "ResultsFailed", "Drift", "DiskFillsUp"))
    assert len(lines()) > 30
