"""Which model a folder holds."""

from __future__ import annotations

import hashlib
from pathlib import Path

from scripts.edge.outliers import OutlierRule
from scripts.edge.results import ModelIdentity
from scripts.files import DESCRIPTION, WEIGHTS
from scripts.json_files import read_json
from scripts.networks.classifier import class_names, read_description
from scripts.run_config import no_model
from scripts.versions.store import ADVICE, RECORD, SCHEMA


def identify(folder: str | Path, temperature: float | None = None, threshold: float | None = None) -> ModelIdentity:
    """Say which model a folder holds.

    Args:
        folder: a folder with ``network.json`` and ``model.pt``.
        temperature: see :class:`ModelIdentity`; ``None``: what ``network.json`` says.
        threshold: as the temperature.

    Raises:
        UserError: when a file is missing, or ``network.json`` cannot be used.
    """
    description = read_description(str(Path(folder) / DESCRIPTION))
    weights = Path(folder) / WEIGHTS
    if not weights.is_file():
        raise no_model(folder)
    parts = (description.get("data"), description.get("method"), description["backbone"])
    return ModelIdentity(
        name="-".join(str(part) for part in parts if part),
        version=_version(Path(folder), len(description["tasks"])),
        weights_sha256=hashlib.sha256(weights.read_bytes()).hexdigest(),
        classes=tuple(class_names(description)),
        temperature=description.get("temperature") if temperature is None else temperature,
        threshold=description.get("threshold") if threshold is None else threshold,
        outliers=OutlierRule.read(description.get("outliers")),
    )


def _version(folder: Path, tasks: int) -> str:
    record = folder / RECORD
    return str(read_json(record, SCHEMA, ADVICE)["number"]) if record.is_file() else f"task_{tasks - 1}"
