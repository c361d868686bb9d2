"""Set what was gathered as one page: its pictures, styles and tables are in it, and nothing is fetched."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
from matplotlib.figure import Figure
from PIL import Image

from scripts.commands.reporting.answers import Answers
from scripts.commands.reporting.gathered import Gathered
from scripts.deploy.versions.card import LIMITS
from scripts.imaging.transforms.reader import read_picture
from scripts.learning.planning.contact_sheet import contact_sheet
from scripts.metrics.calibration import reliability
from scripts.metrics.comparison import NOTES, RULE, Results, differences, summary, unfinished
from scripts.pictures.canvas import data_uri, svg_of
from scripts.pictures.comparison import accuracies_figure, cost_figure, forgetting_figure
from scripts.pictures.runs import (
    accuracy_figure,
    accuracy_matrix_figure,
    confusion_figure,
    curves_figure,
    recall_figure,
    reliability_figure,
    retention_figure,
)
from scripts.utils.sums import sha256

MISTAKES = 12
"""The most confident mistakes that are listed."""
SHEET = {"images": 8, "columns": 8, "tile": 72}
SIDE = 96
_SHORT = 12


def run_page(found: Gathered, pictures: bool, features: Mapping[str, str], intended_use: str | None) -> str:
    """Return the page of a run.

    Args:
        found: the run.
        pictures: whether images are shown, and named as their files are.
        features: pictures of what the network has learnt, as elements of the page, by their titles.
        intended_use: what the model is for, in a person's words.
    """
    return _rendered(
        "run.html",
        title=found.name,
        run=found,
        figures=_figures(found),
        features=features,
        mistakes=_mistakes(found, pictures),
        sheets=_sheets(found) if pictures else {},
        pictures=pictures,
        intended_use=intended_use,
        forgotten=_forgotten(found.metrics),
        tasks=_tasks(found),
        limits=LIMITS,
        last=found.answers[-1] if found.answers else None,
    )


def comparison_page(title: str, results: Results, reference: str, seeds: Sequence[int], tuned: str = "") -> str:
    """Return the page of a comparison.

    Args:
        title: what was learnt.
        results: see :data:`scripts.metrics.comparison.Results`.
        reference: see :func:`scripts.metrics.comparison.differences`.
        seeds: those that each method should have.
        tuned: on what the settings were tuned, where they were.
    """
    figures = {
        "accuracies": svg_of(accuracies_figure(results), "accuracies"),
        "cost": svg_of(cost_figure(results), "cost"),
        "forgetting": svg_of(forgetting_figure(results), "forgetting"),
    }
    runs = [
        [method, str(seed), *(_percent(own[name]) for name in ("final_accuracy", "average_accuracy", "forgetting"))]
        for method, seeded in results.items()
        for seed, own in seeded.items()
    ]
    return _rendered(
        "comparison.html",
        title=f"Comparison on {title}",
        figures=figures,
        results=results,
        seeds=seeds,
        summary=summary(results),
        differences=differences(results, reference),
        unfinished=unfinished(results, seeds),
        notes=NOTES.replace("*", ""),
        rule=RULE.replace("*", ""),
        runs=[["method", "seed", "last accuracy", "average accuracy", "forgetting"], *runs],
        tuned=tuned,
    )


def _rendered(name: str, **content: Any) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": _percent, "points": _points, "amount": _amount, "short": _short}
    return environment.get_template(name).render(written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"), **content)


def _figures(found: Gathered) -> dict[str, str]:
    """Return the pictures of a run as elements of a page."""
    metrics = found.metrics
    names = [task["name"] for task in metrics["tasks"]]
    drawn: dict[str, Figure] = {
        "accuracy": accuracy_figure(metrics["accuracies"], metrics["mean_class_recalls"], names, found.beside),
        "matrix": accuracy_matrix_figure(metrics["accuracy_matrix"], names),
    }
    if len(names) > 1:
        drawn["retention"] = retention_figure(metrics["accuracy_matrix"], names)
    if found.history:
        drawn["curves"] = curves_figure(found.history)
    if found.answers:
        last = found.answers[-1]
        drawn["recall"] = recall_figure(last.rows, last.sizes)
        drawn["confusion"] = confusion_figure(last.counts, last.classes, last.sizes)
        drawn["reliability"] = reliability_figure(
            {one.task: reliability(one.labels, one.probabilities) for one in found.answers}
        )
    return {name: svg_of(figure, name) for name, figure in drawn.items()}


def _tasks(found: Gathered) -> list[dict[str, Any]]:
    """Return each task with its classes and, where they are there, the test images of each."""
    last = found.answers[-1] if found.answers else None
    images = {} if last is None else dict(zip(last.classes, last.counts.sum(1).tolist(), strict=True))
    return [
        {"name": task["name"], "classes": [(name, images.get(name)) for name in task["classes"]]}
        for task in found.metrics["tasks"]
    ]


def _forgotten(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the accuracy on each task just after it was learnt, at its best and now."""
    rows = metrics["accuracy_matrix"]
    return [
        {
            "name": task["name"],
            "then": rows[number][number],
            "best": max((row[number] for row in rows[number:] if row[number] is not None), default=None),
            "now": rows[-1][number],
        }
        for number, task in enumerate(metrics["tasks"])
    ]


def _mistakes(found: Gathered, pictures: bool) -> list[dict[str, Any]]:
    """Return the most confident mistakes; without ``pictures`` an image is named by a hash of its reference."""
    listed = found.answers[-1].mistakes(MISTAKES) if found.answers else []
    for one in listed:
        one["picture"] = _thumbnail(one["image"]) if pictures else None
        one["image"] = one["image"] if pictures else sha256(one["image"].encode())[:_SHORT]
    return listed


def _thumbnail(image: str) -> str:
    picture = Image.fromarray(read_picture(image))
    picture.thumbnail((SIDE, SIDE))
    return _uri(picture)


def _uri(picture: Image.Image) -> str:
    content = io.BytesIO()
    picture.save(content, "PNG")
    return data_uri(content.getvalue())


def _sheets(found: Gathered) -> dict[str, str]:
    """Return a contact sheet of test images a task."""
    if not found.answers:
        return {}
    last: Answers = found.answers[-1]
    sheets = {}
    for task in found.metrics["tasks"]:
        shown = {
            name: [image for image, label in zip(last.images, last.labels, strict=True) if last.classes[label] == name]
            for name in task["classes"]
        }
        sheets[task["name"]] = _uri(contact_sheet(task["name"], shown, **SHEET))
    return sheets


def _percent(value: float | None, digits: int = 1) -> str:
    return "not measured" if value is None else f"{100 * value:.{digits}f} %"


def _points(value: float | None) -> str:
    return "" if value is None else f"{100 * value:+.1f}"


def _amount(value: float | None, unit: float = 1.0, digits: int = 2) -> str:
    return "" if value is None else f"{value / unit:,.{digits}f}"


def _short(text: str) -> str:
    return text[:_SHORT]
