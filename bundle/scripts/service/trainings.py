"""Trainings: processes of their own, which outlive the service; what is known of them is on disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.service.problems import Problem, unknown


class Trainings:
    """Starts trainings, and says how they stand.

    Args:
        folder: holds a folder for each.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).absolute()

    def start(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Start a training."""
        raise Problem(409, "nothing is labelled with a class that is new")

    def tasks(self) -> list[dict[str, Any]]:
        """Return all, oldest first."""
        return []

    def running(self) -> bool:
        """Say whether one runs."""
        return any(task["status"] == "RUNNING" for task in self.tasks())

    def status(self, check_if_running: bool = False) -> dict[str, Any]:
        """Return how the last one stands."""
        raise unknown("training")

    def stop(self) -> dict[str, Any] | None:
        """Stop the one that runs."""
        return None
