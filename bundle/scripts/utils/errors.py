"""What went wrong, where, and what to do: the one exception a user's mistake raises, and how it is shown."""

from __future__ import annotations

import signal
import sys
import traceback
from types import FrameType, TracebackType

GO_ON = "What was learnt is saved: run the same command again (without --restart) to go on."


class UserError(Exception):
    """A mistake the user can mend. The message is one line: what was wrong, where, and what to do.

    Attributes:
        exit_status: of a command that it ends.
    """

    exit_status = 1


class UsageError(UserError):
    """A command line that cannot be meant: nothing was begun."""

    exit_status = 2


def find_user_error(error: BaseException | None) -> UserError | None:
    """Return the first :class:`UserError` in the chain of causes of ``error``, if there is one."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, UserError):
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None


def describe(error: BaseException, stopped: str = GO_ON) -> str:
    """Say in one line what ended the program.

    Args:
        error: what ended it.
        stopped: what follows for the user when it was stopped from outside.
    """
    user_error = find_user_error(error)
    if user_error is not None:
        # a loader's worker hands on its traceback as text, in which the message comes last
        kind = f"{type(user_error).__module__}.{type(user_error).__qualname__}: "
        return f"Error: {str(user_error).rpartition(kind)[2].strip()}"
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause, KeyboardInterrupt):
        return f"Stopped. {stopped}"
    return f"Error: {type(cause).__name__}: {cause}"


def fault(error: Exception) -> str:
    """Say what went wrong and where, without the message, which may name people."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {place.filename}, line {place.lineno}"


def install_error_hook(stopped: str = GO_ON) -> None:
    """Print, last of all, the line that says what was wrong, and turn SIGTERM into an orderly stop.

    ``monai.bundle run`` wraps every exception (a constructor's in a hint about ``_mode_=debug``), which buries the
    message; the hook looks for the :class:`UserError` in the chain of causes. A user's mistake shows no traceback.

    Args:
        stopped: what follows for the user when the program is stopped from outside.
    """

    def show(kind: type[BaseException], error: BaseException, at: TracebackType | None) -> None:
        if find_user_error(error) is None and not isinstance(error, KeyboardInterrupt):
            sys.__excepthook__(kind, error, at)
        print(describe(error, stopped), file=sys.stderr)

    def terminate(number: int, frame: FrameType | None) -> None:
        print(f"Terminated. {stopped}", file=sys.stderr)
        raise SystemExit(128 + number)

    sys.excepthook = show
    signal.signal(signal.SIGTERM, terminate)
