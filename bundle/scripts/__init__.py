"""The code of the bundle. Each folder is a room; a module imports only from rooms above it (docs, How it works)."""

from __future__ import annotations

import getpass
import json
import os
from functools import cache
from pathlib import Path

try:
    getpass.getuser()
except (KeyError, OSError):  # as containers run: MONAI asks for the name when it is imported, and would end there
    os.environ["LOGNAME"] = f"uid_{os.getuid()}"


def bundle_root() -> str:
    """Return the folder of the bundle, wherever it was unpacked and whatever the working directory is."""
    return str(Path(__file__).resolve().parent.parent)


@cache
def bundle_version() -> str:
    """Return the version of this software, as ``configs/metadata.json`` states it."""
    return str(json.loads(Path(bundle_root(), "configs", "metadata.json").read_text())["version"])


def child_environment(**further: str) -> dict[str, str]:
    """Return the environment of a child process that finds the bundle's code, wherever it is started."""
    path = os.pathsep.join(filter(None, [bundle_root(), os.environ.get("PYTHONPATH")]))
    return {**os.environ, **further, "PYTHONPATH": path}
