"""What ``network.json`` says of a trained model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.imaging.image_spec import SCHEMA as IMAGE
from scripts.imaging.image_spec import ImageSpec
from scripts.model.networks.backbones import TIMM, find_backbone
from scripts.model.networks.classifier import NETWORK_KEYS
from scripts.utils.errors import UserError
from scripts.utils.files import CONFIG, DESCRIPTION
from scripts.utils.json_files import TEXT, TEXTS, check_json

ADVICE = "restore it or train again"
_NUMBER = {"type": ["number", "null"], "maximum": 1e6}
_TASK = {
    "type": "object",
    "required": ["name", "classes"],
    "properties": {"name": TEXT, "classes": {**TEXTS, "minItems": 1, "uniqueItems": True}},
}
_MODULE = {"type": "string", "pattern": r"^\w[\w.]*$"}
SCHEMA = {
    "type": "object",
    "required": [*NETWORK_KEYS, "image"],
    "properties": {
        "backbone": TEXT,
        "head": TEXT,
        "tasks": {"type": "array", "minItems": 1, "items": _TASK},
        "adapter": {"type": ["object", "null"], "required": ["kind"], "properties": {"kind": TEXT}},
        "branches": {"type": "array", "items": _MODULE, "minItems": 1, "maxItems": 1000},
        "sites": {"type": ["array", "null"], "items": _MODULE},
        "levels": {"type": ["array", "string"], "items": _MODULE},
        "image": IMAGE,
        "temperature": _NUMBER,
        "threshold": _NUMBER,
        "thresholds": {"type": "array", "items": {"type": "number", "minimum": -1e6, "maximum": 1e6}},
    },
}
"""What it holds, as a JSON schema; further keys are other rooms'."""


def parse_description(content: bytes, path: Path) -> dict[str, Any]:
    """Return what a ``network.json`` says.

    Args:
        content: of the file.
        path: what messages call it.

    Raises:
        UserError: when it is not JSON, or lacks or misstates a key.
    """
    description: dict[str, Any] = check_json(content, SCHEMA, path, ADVICE)
    names = class_names(description)
    if len(set(names)) < len(names):
        raise UserError(f"{path} has a class twice: {ADVICE}")
    if ":" in description["backbone"].removeprefix(TIMM):
        raise UserError(f"{path} names a backbone that is elsewhere, {description['backbone']}: {ADVICE}")
    if len(description.get("thresholds", names)) != len(names):
        raise UserError(f"{path} has not one threshold for each finding: {ADVICE}")
    try:
        dimensions = image_of(description).dimensions
    except UserError as error:
        raise UserError(f"{path} says how no image can be seen, {error}: {ADVICE}") from error
    if dimensions != find_backbone(description["backbone"]).dimensions:
        raise UserError(f"{path} has images of other dimensions than {description['backbone']} takes: {ADVICE}")
    return description


def image_of(description: Mapping[str, Any]) -> ImageSpec:
    """Return how the model sees an image."""
    return ImageSpec(**description["image"])


def name_of(description: Mapping[str, Any]) -> str:
    """Return ``<data>-<method>-<backbone>``, as the model's run is called."""
    return "-".join(str(description[key]) for key in ("data", "method", "backbone") if description.get(key))


def class_names(description: Mapping[str, Any]) -> list[str]:
    """Return the names of all classes, in the order of the network's outputs."""
    return [name for task in description["tasks"] for name in task["classes"]]


def recent_runs(count: int = 3) -> list[str]:
    """Return the folders of the newest runs with a model in ``runs`` of the current folder, newest first."""
    found = Path("runs").glob(f"**/{CONFIG}")
    folders = [path.parent for path in found if (path.parent / DESCRIPTION).is_file()]
    return [str(folder) for folder in sorted(folders, key=lambda path: -path.stat().st_mtime)[:count]]


def no_model(folder: str | Path) -> UserError:
    """Return the error to raise where a folder has no trained model: it names recent runs."""
    runs = recent_runs()
    known = f"the newest here are {', '.join(runs)}" if runs else "train one first"
    return UserError(f"no trained model in {folder}: give a run or a model's folder (--model RUN); {known}")
