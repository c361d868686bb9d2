"""The command ``dynammo``: its words are read first, and only what they ask for is imported then."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from typer import Abort
from typer.exceptions import TyperException
from typer.main import get_command

from scripts.commands.everyone import app as everyone
from scripts.commands.further import app as further
from scripts.commands.terminal import end
from scripts.utils.process import prepare_process

NAME = "dynammo"
STOPPED = "Run the same command again."
DEPLOYED = "this bundle was packaged for deployment alone and lacks what this command needs: use the whole one"

everyone.add_typer(further)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: its words; ``None``: those of the process.

    Returns:
        The exit status: 0, 1 after a mistake, 2 where the words cannot be meant, 130 after an interruption, or what the
        command says.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    prepare_process(STOPPED)
    try:
        return _run(words)
    except TyperException as error:
        said = error.format_message()
        print(f"Error: {said} See {NAME} {' '.join(words[:1])} --help" if words else said, file=sys.stderr)
        return error.exit_code
    except (KeyboardInterrupt, Abort) as error:
        sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), error.__traceback__)  # in the words of what was running
        return 130


def _run(words: Sequence[str]) -> int:
    try:
        work = get_command(everyone).main(list(words), prog_name=NAME, standalone_mode=False)
        return end(work) if callable(work) else work or 0
    except ModuleNotFoundError as error:
        if not str(error.name).startswith("scripts."):
            raise
        print(f"Error: {DEPLOYED}", file=sys.stderr)
        return 1
