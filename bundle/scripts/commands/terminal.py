"""How a command ends: one line of what it did, or one line of what was wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable

from scripts.errors import UserError


def end(command: Callable[[], str | tuple[str, int]]) -> int:
    """Run a command and print what it returns; a user's mistake is printed as one line, without a traceback.

    Args:
        command: does the work and says what it did, with the exit status where that is not always 0.

    Returns:
        The exit status: 0 or what the command says, 1 after a mistake.
    """
    try:
        done = command()
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    said, status = (done, 0) if isinstance(done, str) else done
    print(said)
    return status
