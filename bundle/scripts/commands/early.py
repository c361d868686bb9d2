"""What MONAI would refuse in words of its own, or only once torch is loaded: checked before either is imported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts.commands.configs import CONFIGS, known_configs, read_config, run_arguments
from scripts.commands.given import given
from scripts.commands.key_table import quoted, read_keys
from scripts.commands.keys import check_has_value, check_typed
from scripts.commands.pages import check_order
from scripts.commands.values import refusal
from scripts.utils.errors import UsageError


def check_early(files: Sequence[Path], keys: Sequence[str]) -> None:
    """Check a command line by the texts of its configs alone.

    Args:
        files: the configs, later ones over earlier ones.
        keys: ``--key value`` words over them.

    Raises:
        UsageError: for files in another order than they work in, a part without what it changes, a key that nothing
            has or that has no value, a value that its key does not take.
        UserError: for a file that cannot be read.
    """
    said = given(run_arguments(files, keys))
    assert said is not None
    check_order(said.files)
    listed = merged_texts(files)
    check_typed(said, listed)
    check_has_value(said, listed)
    typed, known = said.typed(), read_keys()
    for place, text in typed.items():
        if place in known and text is not None and not known[place].fits(value := known[place].read(text)):
            raise refusal(place, typed, value, known[place].takes, quoted(known[place].example))


def given_value(key: str, files: Sequence[Path], keys: Sequence[str]) -> str:
    """Return what a key of text is, on the command line or in the configs."""
    said = given(run_arguments(files, keys))
    assert said is not None
    return str(said.typed().get(key) or merged_texts(files)[key])


def merged_texts(files: Sequence[Path]) -> dict[str, Any]:
    """Return the top-level keys of configs; whole configs stay beside them, since their expressions name keys, too.

    Raises:
        UsageError: where a config changes what none before it has, or what one before it has made null.
        UserError: for a file that cannot be read.
    """
    found: dict[str, Any] = {}
    for file in files:
        content = read_config(file)
        own = {key for key in content if key[0] != "+" and "#" not in key}
        for key in content:
            top = key.removeprefix("+").split("#")[0]
            if "#" in key and top not in found and top not in own:
                raise UsageError(f"{file} changes '{top}', which no file before it has{_where(top, file)}")
            if "#" in key and top not in own and found[top] is None:
                raise UsageError(f"{file} changes '{top}', which a file before it leaves out: leave out one of the two")
        found |= {str(file): content, **{key: content[key] for key in own}}
        found |= {key[1:]: value for key, value in content.items() if key[0] == "+" and key[1:] not in found}
    return found


def _where(key: str, file: Path) -> str:
    """Say which part has a key."""
    parts = [name for name, page in known_configs("parts").items() if key in read_config(page)]
    if not parts:
        return f": list a file that has it before, as those in {CONFIGS} do"
    return f": name the part {' or '.join(parts)} before it, such as {parts[0]}+{file.stem}"
