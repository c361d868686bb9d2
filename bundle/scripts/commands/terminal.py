"""What commands share: how they read numbers, and how they end."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from scripts.utils.errors import UserError


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
        return error.exit_status
    said, status = (done, 0) if isinstance(done, str) else done
    if said:
        _print(said)
    return status


def _print(text: str) -> None:
    """Print to who may have read enough (``| head``), which is no mistake."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains when it ends


def end_or_stop(command: Callable[[], str]) -> int:
    """Run a command that trains, as :func:`end` does; when it is interrupted, say that what was learnt is saved.

    Returns:
        The exit status of :func:`end`, or 130 after an interruption.
    """
    try:
        with interruptible():
            return end(command)
    except KeyboardInterrupt:
        print("Stopped. What was learnt is saved: run the same command again to go on.", file=sys.stderr)
        return 130


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM and a closed terminal interrupt as Ctrl-C does, unless they are to be ignored (nohup)."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def held_back() -> Iterator[None]:
    """Hold an interruption back until the end of the block, so that what it starts is known to who has to stop it."""
    came: list[int] = []
    interrupts = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: handler for number in interrupts if callable(handler := signal.getsignal(number))}
    for number in before:
        signal.signal(number, lambda came_now, _: came.append(came_now))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


def positive(text: str) -> int:
    """Read a number above 0."""
    if not (text.isascii() and text.isdigit()) or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text} is no whole number above 0")
    return int(text)
