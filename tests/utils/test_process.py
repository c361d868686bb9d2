"""What a process begins with reaches the C library and torch's threads."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.utils.process import SPINS, keep_memory

BUNDLE = Path(__file__).resolve().parents[2] / "bundle"
FAULTS = """
import resource, torch
from scripts.utils.process import keep_memory
{first}
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


def run(code: str, **environment: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "MALLOC_"))}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=BUNDLE,
        env={**kept, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="glibc alone has mallopt")
def test_memory_that_is_freed_is_kept() -> None:
    """Ten tensors of 64 MiB one after the other: without the setting each one's 16,384 pages are taken anew."""
    assert keep_memory()
    plain, kept = (int(run(FAULTS.format(first=first))) for first in ("", "keep_memory()"))
    assert kept < plain / 10


@pytest.mark.parametrize(("given", "spins"), [({}, str(SPINS)), ({"GOMP_SPINCOUNT": "5"}, "5")])
def test_threads_wait_asleep_unless_they_are_told_otherwise(given: dict[str, str], spins: str) -> None:
    code = "import os; from scripts.utils.process import prepare_process; prepare_process(); print({})"
    asked = code.format("os.environ.get('GOMP_SPINCOUNT')")
    assert run(asked, **given) == spins
    assert run(asked, OMP_WAIT_POLICY="ACTIVE") == "None"


def test_the_command_sets_it_before_torch_is_imported() -> None:
    code = "import os, sys; from scripts.commands.app import main; main(['--help']); "
    assert run(code + "print('torch' in sys.modules, os.environ['GOMP_SPINCOUNT'])").endswith(f"False {SPINS}")
