"""What every process of the bundle that runs a network begins with."""

from __future__ import annotations

import ctypes
import os

from scripts.utils.errors import GO_ON, install_error_hook

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's <malloc.h>: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
_LARGEST = 2**30
SPINS = 2000
"""So many turns a thread waits awake for the others of its process, then asleep (``benchmarks/waiting.py``)."""


def prepare_process(stopped: str = GO_ON) -> None:
    """Let errors end in the line that says what was wrong, and waste neither memory's pages nor waiting.

    Args:
        stopped: what follows for the user when the program is stopped from outside.
    """
    install_error_hook(stopped)
    keep_memory()
    wait_asleep()


def keep_memory() -> bool:
    """Keep memory that is freed; glibc otherwise gives it back after each step, and the next one waits for its pages.

    Returns:
        Whether the C library can: glibc does, musl and those of other systems do not.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(which, _LARGEST) == 1 for which in (_TRIM_THRESHOLD, _MMAP_THRESHOLD))


def wait_asleep() -> None:
    """Let threads wait asleep for one another; awake they take the processor from what they wait for.

    OpenMP reads this when torch is first imported: ``python -m monai.bundle`` imports it before anything of ours, and
    its caller sets ``GOMP_SPINCOUNT``.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPINS))
