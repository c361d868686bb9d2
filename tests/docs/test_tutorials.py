"""The commands of each tutorial, as they are typed, one block after the other in an empty folder."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TUTORIALS = [path for path in sorted((ROOT / "docs" / "tutorials").glob("*.md")) if path.stem != "index"]


def blocks(path: Path) -> list[str]:
    """Return the commands that a tutorial says to run."""
    return re.findall(r"^```bash\n(.*?)^```$", path.read_text(encoding="utf-8"), re.M | re.S)


def test_each_tutorial_has_commands_to_run() -> None:
    assert len(TUTORIALS) == 5 and all(blocks(path) for path in TUTORIALS)


@pytest.mark.slow
@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_its_commands_run(path: Path, environment: Mapping[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    script = "set -euo pipefail\n" + "\n".join(blocks(path))
    done = subprocess.run(["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
