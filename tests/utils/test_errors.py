"""The last line says what was wrong; SIGTERM is an orderly end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.utils.errors import UserError, describe, find_user_error

BUNDLE = Path(__file__).resolve().parents[2] / "bundle"
MISTAKE = UserError("no folder 'x': make it")


def raised(depth: int, explicit: bool) -> BaseException:
    """MISTAKE, wrapped ``depth`` times, by ``from`` or by being raised while handling."""
    try:
        if depth == 0:
            raise MISTAKE
        try:
            raise raised(depth - 1, explicit)
        except Exception as error:
            if explicit:
                raise RuntimeError(f"wrapped {depth} times") from error
            raise RuntimeError(f"wrapped {depth} times")  # noqa: B904
    except Exception as error:
        return error


@pytest.mark.parametrize("explicit", [True, False])
@pytest.mark.parametrize("depth", [0, 1, 4])
def test_a_users_mistake_is_found_however_deep(depth: int, explicit: bool) -> None:
    error = raised(depth, explicit)
    assert find_user_error(error) is MISTAKE
    assert describe(error) == "Error: no folder 'x': make it"


def test_an_endless_chain_ends() -> None:
    first, second = RuntimeError("first"), RuntimeError("second")
    first.__cause__, second.__context__ = second, first
    assert find_user_error(first) is None


def test_another_error_is_named_by_its_root_cause() -> None:
    error = RuntimeError("Failed to evaluate")
    error.__cause__ = ValueError("negative")
    assert find_user_error(error) is None
    assert describe(error) == "Error: ValueError: negative"


def test_a_keyboard_interrupt_says_how_to_go_on() -> None:
    assert describe(KeyboardInterrupt()) == (
        "Stopped. What was learnt is saved: run the same command again (without --restart) to go on."
    )
    assert describe(KeyboardInterrupt(), "Nothing was trained.") == "Stopped. Nothing was trained."


def run_python(code: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(BUNDLE)}
    full = f"from scripts.utils.errors import UserError, install_error_hook\ninstall_error_hook()\n{code}"
    command = [sys.executable, "-c", full]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_users_mistake_is_one_line_without_a_traceback() -> None:
    code = "try:\n    raise UserError('mend it')\nexcept Exception as error:\n    raise RuntimeError('hint') from error"
    process = run_python(code)
    out, err = process.communicate(timeout=60)
    assert (out, err, process.returncode) == ("", "Error: mend it\n", 1)


def test_a_bug_keeps_its_traceback_and_gets_a_last_line() -> None:
    process = run_python("[][0]")
    _, err = process.communicate(timeout=60)
    assert err.startswith("Traceback")
    assert err.splitlines()[-1] == "Error: IndexError: list index out of range"
    assert process.returncode == 1


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGTERM, 143, "Terminated"), (signal.SIGINT, None, "Stop")]
)
def test_a_signal_ends_in_one_line_after_cleaning_up(number: signal.Signals, code: int | None, word: str) -> None:
    process = run_python(
        "import signal, time\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "try:\n    print('ready', flush=True)\n    time.sleep(60)\nfinally:\n    print('cleaned up')"
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert out == "cleaned up\n"
    assert err.startswith(word)
    assert err.endswith("What was learnt is saved: run the same command again (without --restart) to go on.\n")
    assert len(err.splitlines()) == 1
    assert process.returncode != 0
    assert code is None or process.returncode == code
