"""What the tests of the documentation share."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def environment(tmp_path: Path) -> Mapping[str, str]:
    """An environment in which ``dynammo`` and ``python`` are those of this checkout, with one thread."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, words in (("dynammo", '-c "import dynammo; dynammo.main()" "$@"'), ("python", '"$@"')):
        script = folder / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {words}\n')
        script.chmod(0o755)
    path = os.pathsep.join([str(folder), os.environ.get("PATH", "")])
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
