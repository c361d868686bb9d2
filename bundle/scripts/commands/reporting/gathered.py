"""All that a run, and what lies beside it, says of itself."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.commands.configs import CONFIGS, read_config
from scripts.commands.reporting.answers import Answers, answers_of
from scripts.commands.take_over import parser_of
from scripts.deploy.versions.store import VersionStore
from scripts.learning.planning.warnings import PlanWarning
from scripts.learning.run_config import is_finished, plain_settings, read_run_config, what_matters
from scripts.utils.errors import UserError, find_user_error
from scripts.utils.files import CONFIG, WEIGHTS
from scripts.utils.running import RECORDED
from scripts.utils.sums import file_sha256

METRICS, TIMING, HISTORY = "metrics.json", "timing.json", "history.csv"
FINETUNE = "finetune"


@dataclass(frozen=True)
class Gathered:
    """A run.

    Attributes:
        folder: of it.
        config: see :func:`scripts.learning.run_config.read_run_config`.
        metrics: what it measured.
        timing: how long it took.
        history: rows of ``history.csv``, with numbers in place of texts.
        answers: of the model after each task; none where the test images are gone.
        missing: what is not there, and why, by what it is.
        beside: accuracies of runs of plain fine-tuning on the same tasks, by what they are called.
        warnings: of the data, none where they are gone.
        audit: events of the store of versions.
    """

    folder: Path
    config: Mapping[str, Any]
    metrics: Mapping[str, Any]
    timing: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]]
    answers: Sequence[Answers]
    beside: Mapping[str, Sequence[float | None]]
    warnings: Sequence[PlanWarning]
    audit: Sequence[Mapping[str, Any]]
    missing: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What the run is called."""
        return self.folder.resolve().name

    @property
    def method(self) -> str:
        """The method with its parts."""
        return "+".join([self.config["method"], *self.config.get("parts", [])])

    @property
    def finished(self) -> bool:
        """Whether all tasks are learnt."""
        return is_finished(self.folder)

    @property
    def holds_scans(self) -> bool:
        """Whether its images are DICOM or NIfTI files."""
        return self.config["image"].get("presentation") is not None

    @property
    def settings(self) -> dict[str, Any]:
        """All texts and numbers of its config that matter for what is learnt."""
        return plain_settings(what_matters(self.config))

    @property
    def hashes(self) -> dict[str, str]:
        """The hash of each of its models, and of its config."""
        files = [*sorted(self.folder.glob(f"task_*/{WEIGHTS}")), self.folder / WEIGHTS, self.folder / CONFIG]
        return {str(file.relative_to(self.folder)): file_sha256(file) for file in files if file.is_file()}

    @property
    def recorded(self) -> Mapping[str, Any]:
        """What it ran on."""
        return self.config[RECORDED]

    @property
    def stages(self) -> list[Mapping[str, Any]]:
        """Its stages, as the config has them."""
        return [
            self.config[name[1:]] for name in self.config["stages"] if isinstance(self.config.get(name[1:]), Mapping)
        ]


def gather(run: Path, store: Path | None = None) -> Gathered:
    """Read a run; its test images are classified anew by the model of each task.

    Args:
        run: its folder.
        store: of versions, whose audit log is reported.

    Raises:
        UserError: when the folder holds no run that has learnt a task, or a file of it cannot be read.
    """
    config, metrics = read_run_config(run), _json(run / METRICS)
    missing: dict[str, str] = {}
    try:
        answers = answers_of(run)
    except UserError as error:
        answers, missing["answers"] = [], str(error)
    try:
        warnings = data_warnings(run, config)
    except Exception as error:  # MONAI wraps what a source raises
        mistake = find_user_error(error)
        if mistake is None:
            raise
        warnings, missing["warnings"] = (), str(mistake)
    return Gathered(
        folder=run,
        config=config,
        metrics=metrics,
        timing=_json(run / TIMING),
        history=list(_history(run / HISTORY)) if (run / HISTORY).is_file() else [],
        answers=answers,
        beside=dict(_beside(run, config, metrics)),
        warnings=warnings,
        audit=[] if store is None else VersionStore(store).audit.events(),
        missing=missing,
    )


def data_warnings(run: Path, config: Mapping[str, Any]) -> Sequence[PlanWarning]:
    """Look at the data of a run as a plan does.

    Raises:
        UserError: when they are gone.
    """
    if not Path(config["dataset_dir"]).exists():
        raise UserError(f"the data are not in {config['dataset_dir']}")
    parser = parser_of(run)
    parser.update({key: value for key, value in read_config(CONFIGS / "plan.json").items() if key != "run"})
    parser.parse()
    return parser.get_parsed_content("plan").warnings


def _beside(
    run: Path, config: Mapping[str, Any], metrics: Mapping[str, Any]
) -> Iterator[tuple[str, list[float | None]]]:
    """Yield the runs of fine-tuning that lie beside a run and learnt the same tasks from the same seed."""
    for other in sorted(run.resolve().parent.glob(f"*/{METRICS}")):
        if other.parent == run.resolve() or not is_finished(other.parent):
            continue
        theirs, measured = read_run_config(other.parent), _json(other)
        same = all(theirs.get(key) == config.get(key) for key in ("data", "seed", "dataset_dir"))
        if same and theirs.get("method") == FINETUNE and measured["tasks"] == metrics["tasks"]:
            yield "+".join([FINETUNE, *theirs.get("parts", [])]), measured["accuracies"]


def _history(path: Path) -> Iterator[dict[str, Any]]:
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            numbers = {name: float(row[name]) if row[name] else None for name in row if name not in ("task", "stage")}
            yield {**row, **numbers}


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path} ({error}): give a run that has learnt a task") from error
