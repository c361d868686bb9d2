"""A plan as people and programs read it: on the terminal, ``plan.md`` and ``plan.json``."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tabulate import tabulate

from scripts.learning.planning.contact_sheet import FOLDER, sheet_names
from scripts.learning.planning.estimate import Estimate
from scripts.learning.planning.examine import PARTS
from scripts.learning.planning.plan import Plan, TaskPlan
from scripts.learning.tasks.task import Task
from scripts.utils.files import write_atomically

_KINDS_SHOWN = 3
_LEGEND = (
    "memory a class: how many images of each class learnt so far are kept for later tasks, at most.\n"
    "images as stored: width x height (volumes: depth x height x width), and kind (L: grey, RGB: colour, P: palette)."
)

logger = logging.getLogger(__name__)


def write_plan(
    plan: Plan,
    tasks: Sequence[Task],
    folder: str,
    data: str,
    image_size: int,
    licence: str,
    estimate: Estimate | None = None,
) -> None:
    """Write ``plan.json`` and ``plan.md``, and log the plan as a table.

    Args:
        plan: the plan.
        tasks: what it is of.
        folder: where the files go; contact sheets that are there are linked.
        data: name of the data.
        image_size: the side, in pixels, that images are resized to.
        licence: of the pretrained weights.
        estimate: what the training will take; ``None``: nothing is said of it.

    Raises:
        UserError: the folder cannot be written.
    """
    target = Path(folder)
    sheets = {
        label: f"{FOLDER}/{file}" for label, file in sheet_names(tasks).items() if (target / FOLDER / file).is_file()
    }
    title = (
        f"Plan for {data}: {_sum(plan, 'train')} training, {_sum(plan, 'validation')} validation and "
        f"{_sum(plan, 'test')} test images "
        f"(classes: {sum(len(task.classes) for task in plan.tasks)}, tasks: {len(plan.tasks)}), "
        f"each resized to {image_size} pixels a side"
    )
    content = _content(plan, sheets, data, image_size)
    content |= {"licence": licence, "estimate": estimate and asdict(estimate)}
    said = [f"Licence of the pretrained weights: {licence}.", *filter(None, [_estimate(estimate)])]
    write_atomically(target / "plan.md", _markdown(title, plan, sheets, said))
    write_atomically(target / "plan.json", json.dumps(content, indent=4) + "\n")
    seen = f"Contact sheets, one picture a class: {target / FOLDER}" if sheets else "No contact sheets."
    logger.info("\n%s", f"{_text(title, plan, said)}\n\n{seen}\nThe plan as a file: {target / 'plan.md'}")


def _content(plan: Plan, sheets: dict[int, str], data: str, image_size: int) -> dict[str, Any]:
    """Return what ``plan.json`` holds."""
    tasks = [asdict(task) for task in plan.tasks]
    for task in tasks:
        task["classes"] = [{**member, "contact_sheet": sheets.get(member["label"])} for member in task["classes"]]
    warnings = [asdict(warning) for warning in plan.warnings]
    return {"data": data, "image_size": image_size, "tasks": tasks, "files": plan.files, "warnings": warnings}


def _text(title: str, plan: Plan, said: Sequence[str]) -> str:
    """Set the plan for a terminal."""
    warnings = [
        f"{warning.count:>6}  {warning.what}\n"
        + (f"        {warning.first}\n" if warning.first else "")
        + f"        {warning.advice}"
        for warning in plan.warnings
    ]
    tables = (tabulate(rows, **_style(aligned)) for rows, aligned in (_tasks(plan), _classes(plan)))
    rest = (_LEGEND, _files(plan), *said, "Warnings" if warnings else "No warnings.")
    return "\n\n".join([title, *tables, *rest, *warnings])


def _markdown(title: str, plan: Plan, sheets: dict[int, str], said: Sequence[str]) -> str:
    """Set the plan as Markdown, with links to the contact sheets."""
    tasks, classes = _tasks(plan), _classes(plan)
    labels = [member.label for task in plan.tasks for member in task.classes]
    linked = [[*classes[0][0], "contact sheet"]]
    for label, row in zip(labels, classes[0][1:], strict=True):
        linked.append([*row, f"[picture](<{sheets[label]}>)" if label in sheets else ""])
    tables = (
        tabulate([[_cell(cell) for cell in row] for row in rows], **_style(aligned), tablefmt="github")
        for rows, aligned in ((tasks[0], tasks[1]), (linked, (*classes[1], "left")))
    )
    warnings = [
        f"- **{warning.count} {warning.what}**{': ' if warning.first else ''}{warning.first}. {warning.advice}"
        for warning in plan.warnings
    ]
    parts = [
        f"# {title}",
        *tables,
        _LEGEND,
        _files(plan),
        *said,
        "## Warnings",
        "\n".join(warnings) or "None.",
    ]
    return "\n\n".join(parts) + "\n"


def _files(plan: Plan) -> str:
    """Say what becomes of every file."""
    uses = [f"{count} {use}{'' if use in PARTS else ' (left out)'}" for use, count in plan.files.items()]
    return f"Files of the data set (of an npz file, its images): {sum(plan.files.values())} = {' + '.join(uses)}."


def _estimate(estimate: Estimate | None) -> str:
    """Say what the training will take, and of what that is made up."""
    if estimate is None:
        return ""
    if estimate.parts is None or estimate.steps is None:
        return f"No estimate of time and memory, since a rehearsal of the training ended with: {estimate.fault}"
    gpu = f", {estimate.gpu_memory / 1e9:.1f} GB of the GPU's" if estimate.gpu_memory else ""
    steps = {name: f" (a step takes {seconds:.3g} s)" for name, seconds in estimate.steps.items()}
    parts = [
        f"{name.replace('_', ' ')} {_duration(seconds)}{steps.get(name, '')}"
        for name, seconds in estimate.parts.items()
    ]
    return (
        f"Training will take about {_duration(estimate.seconds)} and {estimate.memory / 1e9:.1f} GB of memory{gpu} on "
        "this machine, when it is as busy as now. Estimated from a few steps of each stage, which were trained and "
        f"thrown away: {', '.join(parts)}."
    )


def _duration(seconds: float) -> str:
    unit, size = next((pair for pair in (("h", 3600), ("min", 60)) if seconds >= pair[1]), ("s", 1))
    return f"{seconds / size:.{0 if unit == 's' else 1}f} {unit}"


def _tasks(plan: Plan) -> tuple[list[list[Any]], tuple[str, ...]]:
    """Return a header and a row a task, and how the columns are aligned."""
    rows = [
        [number, task.name, len(task.classes), *_images(task), task.memory_per_class, _kinds(task.images)]
        for number, task in enumerate(plan.tasks, start=1)
    ]
    header = ["", "task", "classes", *PARTS, "memory a class", "images as stored"]
    return [header, *rows], ("right", "left", *["right"] * 5, "left")


def _classes(plan: Plan) -> tuple[list[list[Any]], tuple[str, ...]]:
    """Return a header and a row a class, and how the columns are aligned."""
    rows = [
        [
            number if member.label == task.classes[0].label else "",
            member.name,
            "learnt before" if task.learnt_before else member.train,
            member.validation,
            member.test,
        ]
        for number, task in enumerate(plan.tasks, start=1)
        for member in task.classes
    ]
    return [["task", "class", *PARTS], *rows], ("right", "left", *["right"] * len(PARTS))


def _images(task: TaskPlan) -> list[Any]:
    """Return how many images of each part a task has."""
    return ["learnt before" if task.learnt_before else task.train, task.validation, task.test]


def _kinds(images: dict[str, int]) -> str:
    """Say which kinds of images there are: the most frequent ones, and how many are of other kinds."""
    shown = [f"{kind}: {count}" for kind, count in list(images.items())[:_KINDS_SHOWN]]
    rest = list(images.values())[_KINDS_SHOWN:]
    return ", ".join(shown + ([f"{len(rest)} other kinds: {sum(rest)}"] if rest else []))


def _sum(plan: Plan, split: str) -> int:
    return sum(getattr(task, split) for task in plan.tasks)


def _style(aligned: Sequence[str]) -> dict[str, Any]:
    return {"headers": "firstrow", "colalign": aligned, "disable_numparse": True}


def _cell(cell: object) -> str:
    return str(cell).replace("|", "\\|")
