"""The config that MONAI is resolving at this moment."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from scripts.utils.errors import UserError

if TYPE_CHECKING:
    from monai.bundle import ConfigParser

RECORDED = "recorded"
"""The key of a run's config that says what it ran on: versions, and hashes of code and weights."""


def running_parser() -> ConfigParser:
    """Return the parser that is resolving the config at this moment: MONAI hands it to no object, so the stack tells.

    Raises:
        UserError: when no config is being resolved.
    """
    from monai.bundle import ConfigParser  # takes seconds

    frame: FrameType | None = sys._getframe()
    while frame is not None:
        parser = frame.f_locals.get("self")
        if isinstance(parser, ConfigParser):
            return parser
        frame = frame.f_back
    raise UserError("a run's config is known while MONAI resolves it: build this from a config")


def command_name() -> str:
    """Return how the command is typed here: by its name, by its path, or with Python where it is not installed."""
    beside = Path(sys.executable).with_name("dynammo")
    if shutil.which("dynammo"):
        return "dynammo"
    return os.path.relpath(beside) if beside.is_file() else "python -m scripts.commands"
