"""Take the config of a run that was, in the place of what nobody gave, before anything is built from it."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts.commands.configs import TRAIN, read_config
from scripts.commands.given import Given, given, is_train
from scripts.commands.values import typed_value
from scripts.learning.run_config import DATA, LATER, config_of, differences, read_run_config, resolved
from scripts.model.description import no_model
from scripts.utils.errors import UserError
from scripts.utils.files import CONFIG, WEIGHTS
from scripts.utils.running import RECORDED, running_parser

if TYPE_CHECKING:
    from monai.bundle import ConfigParser

OF_THE_RUN = ("output_dir", "previous", "restart")
"""Keys of the new run alone."""


def go_on(previous: str | None) -> None:
    """Learn a later task as the run before it learnt: what is not given is that run's, what is given is checked.

    Without a run before, a run's own config must be that run's: its expressions are evaluated, so that another value
    of a key would not reach all that was made of it. Only a command line tells what was given; a program that builds a
    workflow gives the whole config.

    Args:
        previous: the run's folder; ``None``: there is none.

    Raises:
        UserError: when the folder holds no run, or something is given that does not go with it; it names it all.
    """
    said = given()
    if said is None:
        return
    if previous is None:
        for file in said.files:
            _check_unchanged(Path(file))
        return
    before = read_run_config(previous)
    now = _with({**deepcopy(before), "weights": None}, said)  # its weights are in its checkpoint
    if changed := differences(resolved(before), resolved(now), (*DATA, *LATER)):
        raise UserError(
            f"the run in {previous} has learnt with other settings ({'; '.join(changed)}): leave them out, or give "
            "that run's"
        )
    _replace(now)


def _check_unchanged(file: Path) -> None:
    if file.name != CONFIG or is_train(str(file)):
        return
    changed = differences(read_run_config(file.parent), config_of(running_parser()))
    if changed:
        raise UserError(
            f"{file} says what that run was, and gives that run alone ({'; '.join(changed)}): for another one start "
            f"from configs/{TRAIN.name}"
        )


def read_run(run: str) -> None:
    """Read images as a run did that is over: all but what is given beside ``train.json`` is its config.

    Args:
        run: the run's folder, or one of its ``task_<t>``.

    Raises:
        UserError: when the folder holds no run.
    """
    said = given()
    if said is not None:
        _replace(_with(read_run_config(run), said))


def _with(config: dict[str, Any], said: Given) -> dict[str, Any]:
    """Return a run's config for another command: with all that was given over it, and places of its own."""
    from monai.bundle import ConfigParser

    defaults = read_config(TRAIN)
    parser = ConfigParser({**config, **{key: defaults[key] for key in OF_THE_RUN}})
    for key, value in _listed(said, parser):
        place = key.removeprefix("+")
        if key != place and isinstance(value, list):
            parser[place] = [*parser[place], *(one for one in value if one not in parser[place])]
        elif key != place and isinstance(value, dict):
            parser[place] = {**parser[place], **value}
        else:
            parser[place] = value
    return parser.get()


def _listed(said: Given, parser: ConfigParser) -> Iterator[tuple[str, Any]]:
    from monai.bundle import ConfigParser

    for file in said.files:
        if not is_train(file):
            yield from ConfigParser.load_config_file(file).items()
    typed = said.typed()
    for key, value in said.values():
        yield key, typed_value(said, parser.get(), key) if key in typed else value


def _replace(config: dict[str, Any]) -> None:
    """Let the running workflow go on with another config."""
    parser = running_parser()
    kept = {"_meta_": parser.get("_meta_", {})}
    parser.set({**{key: own for key, own in config.items() if key != RECORDED}, **kept})
    parser.parse(reset=True)


def parser_of(run: Path) -> ConfigParser:
    """Return what builds the objects of a run, wherever it was moved to.

    Raises:
        UserError: when the folder holds no run.
    """
    from monai.bundle import ConfigParser

    parser = ConfigParser({**read_run_config(run), "output_dir": str(run), "weights": None, "device": "cpu"})
    parser.parse()
    return parser


def folder_of(model: str) -> str:
    """Return the run that a model's folder is of: itself, or the one above.

    Raises:
        UserError: when there is no model in it.
    """
    folder = Path(model)
    if not (folder / WEIGHTS).is_file():
        raise no_model(folder)
    return str(folder if (folder / CONFIG).is_file() else folder.parent)
