"""What finished runs measured, kept beside the tables: another machine adds seeds without training all of them anew."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from clock import machine

from scripts.commands.compare import Run, is_finished
from scripts.learning.run_config import config_digest
from scripts.metrics.comparison import MEASURES
from scripts.utils.errors import UserError
from scripts.utils.files import write_atomically


class Records:
    """The figures of finished runs on one data set; one with another config counts as another run.

    Args:
        path: the file, of JSON; read when it is there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.runs: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.is_file() else {}

    def find(self, run: Run) -> dict[str, Any] | None:
        """Return the figures of a run; ``None`` where it has not been recorded with its settings."""
        found = self.runs.get(_name(run))
        return found if found is not None and found["config"] == config_digest(run.config) else None

    def add(self, runs: Iterable[Run]) -> None:
        """Record those that are finished here, and write the file."""
        for run in runs:
            if _is_finished(run):
                self._add(run)
        write_atomically(self.path, json.dumps(dict(sorted(self.runs.items())), indent=1) + "\n")

    def note(self, run: Run, figures: Mapping[str, Any]) -> None:
        """Add further figures to a recorded run, and write the file."""
        self.runs[_name(run)].update(figures)
        self.add(())

    def results(self, runs: Iterable[Run]) -> dict[str, dict[int, Mapping[str, Any]]]:
        """Return the recorded figures as :data:`scripts.metrics.comparison.Results`."""
        results: dict[str, dict[int, Mapping[str, Any]]] = {}
        for run in runs:
            found = self.find(run)
            results.setdefault(run.method, {}).update({} if found is None else {run.seed: found})
        return results

    def remark(self, runs: Iterable[Run]) -> str:
        """Return what a reader of a table must know where runs of one seed are of several processors, else nothing."""
        seeds: dict[int, dict[str, list[str]]] = {}
        for run in runs:
            known = self.find(run)
            if known is not None:
                seeds.setdefault(run.seed, {}).setdefault(known["processor"], []).append(_name(run))
        mixed = [found for found in seeds.values() if len(found) > 1]
        if not mixed:
            return ""
        listed = "; ".join(f"{processor}: {', '.join(names)}" for found in mixed for processor, names in found.items())
        return f"Seeds of several processors, whose rounding differs, so that differences are not paired: {listed}."

    def _add(self, run: Run) -> None:
        metrics = json.loads((run.folder / "metrics.json").read_text())
        metrics["seconds"] = json.loads((run.folder / "timing.json").read_text())["seconds"]
        figures = {measure.key: metrics.get(measure.key) for measure in MEASURES}
        self.runs[_name(run)] = {
            **(self.find(run) or {}),
            "config": config_digest(run.config),
            "processor": processor(),
            **figures,
        }


def processor() -> str:
    """Return the processor's name and the instructions that torch uses there: results differ between these."""
    return f"{machine().rpartition(',')[0]}, {torch.backends.cpu.get_cpu_capability()}"


def _is_finished(run: Run) -> bool:
    try:
        return is_finished(run)
    except UserError:  # learnt with other settings
        return False


def _name(run: Run) -> str:
    return f"{run.method}-s{run.seed}"
