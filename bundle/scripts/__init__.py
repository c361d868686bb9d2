"""The code of the bundle. Each folder is a room; a module imports only from rooms above its own (docs/DESIGN.md)."""

from __future__ import annotations

from pathlib import Path


def bundle_root() -> str:
    """Return the folder of the bundle, wherever it was unpacked and whatever the working directory is."""
    return str(Path(__file__).resolve().parent.parent)
