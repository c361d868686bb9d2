"""A model card of a version: what it is, how good it is, and what it is not for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate

LIMITS = (
    "For research. Not a medical device: it has no clearance, and nobody has shown that it is safe to decide on.",
    "It knows the classes above and no other: an image of another class is given one of these, unless it looks unlike "
    "all images learnt from (an outlier).",
    "The figures are those of the test images of its own data; images of another scanner, clinic or population were "
    "not tested.",
)


def model_card(record: Mapping[str, Any]) -> str:
    """Return the card, in Markdown.

    Args:
        record: of a version; see :class:`scripts.deploy.versions.store.Version` and ``scripts.commands.versions``.
    """
    tested = record["tested"]
    origin = "none" if record["parent"] is None else f"version {record['parent']}"
    sections = [
        f"# {record['name']}, version {record['number']}",
        f"Learnt {len(record['tasks'])} tasks, {sum(len(task['classes']) for task in record['tasks'])} classes. "
        f"Parent: {origin}.",
        "## Classes\n\n" + markdown_table(["task", "class", "test images", "recall (%)"], _classes(record)),
        "## Accuracy after each task (%)\n\n" + _matrix(record),
        "## On its test images\n\n" + markdown_table(["figure", "value"], _figures(tested)),
        "## Calibration\n\n" + markdown_table(["figure", "value"], _calibration(record.get("calibration", {}))),
        f"## Pretrained weights\n\nLicence: {record['licence']}.",
        "## Settings\n\n" + markdown_table(["key", "value"], [*plain_settings(record["config"]).items()]),
        "## Limits\n\n" + "\n".join(f"- {limit}" for limit in LIMITS),
        "## Files (SHA-256)\n\n" + markdown_table(["file", "hash"], sorted(record["files"].items())),
    ]
    return "\n\n".join(sections) + "\n"


def plain_settings(config: Mapping[str, Any]) -> dict[str, object]:
    """Return the keys of a run's config that hold a plain value, by name."""
    plain = {key: value for key, value in config.items() if not isinstance(value, Mapping | list)}
    return {key: value for key, value in sorted(plain.items()) if not str(value).startswith(("$", "@"))}


def _classes(record: Mapping[str, Any]) -> list[list[object]]:
    images, recalls = record["tested"]["images"], record["tested"]["recalls"]
    return [
        [task["name"], name, images.get(name, 0), percent(recalls.get(name))]
        for task in record["tasks"]
        for name in task["classes"]
    ]


def _matrix(record: Mapping[str, Any]) -> str:
    names = [task["name"] for task in record["tasks"]]
    rows = [[name, *map(percent, row)] for name, row in zip(names, record["accuracy_matrix"], strict=False)]
    return markdown_table(["after learning", *names], rows)


def _figures(tested: Mapping[str, Any]) -> list[list[object]]:
    return [
        ["images", sum(tested["images"].values())],
        ["mean class recall (%)", percent(tested["mean_class_recall"])],
        ["expected calibration error, 15 bins (%)", percent(tested["calibration_error"])],
        ["its 95 % interval (%)", _interval(tested.get("calibration_interval", (None, None)))],
        ["refused", tested["refused"]],
    ]


def _calibration(fitted: Mapping[str, Any]) -> list[list[object]]:
    """Return how temperature and outliers were fitted; an earlier version has neither."""
    error = "expected calibration error of the validation images"
    return [
        ["validation images", fitted.get("images", 0)],
        ["temperature", _number(fitted.get("temperature"))],
        [f"{error}, before (%)", percent(fitted.get("error_before"))],
        [f"{error}, with the temperature (%)", percent(fitted.get("error_after"))],
        ["its 95 % interval (%)", _interval((fitted.get("error_low"), fitted.get("error_high")))],
        ["the same of a perfectly calibrated model (%)", percent(fitted.get("error_by_chance"))],
        ["distance above which an image is an outlier", _number(fitted.get("outlier_threshold"))],
    ]


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"


def _interval(ends: Sequence[float | None]) -> str:
    return " to ".join(filter(None, map(percent, ends)))


def percent(value: float | None) -> str:
    """Return a share as it is written; nothing where it is not known."""
    return "" if value is None else f"{100 * value:.1f}"


def markdown_table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table with every cell as it is."""
    return tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True)
