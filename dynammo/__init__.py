"""The console command of the bundle, which lies within this folder where it is installed, and beside it otherwise."""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> None:
    """Run the command; the bundle's code is not a package of its own, so its folder is put on the path."""
    here = Path(__file__).resolve().parent
    bundle = next(folder for folder in (here / "bundle", here.parent / "bundle") if (folder / "configs").is_dir())
    sys.path.insert(0, str(bundle))
    from scripts.commands.app import main as run

    sys.exit(run())
