"""The plan for people and for programs: tables, warnings, links to the contact sheets, and no patient."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scripts.learning.memory import ExemplarMemory
from scripts.learning.planning import make_plan, write_contact_sheets, write_plan
from scripts.learning.planning.plan import Plan
from scripts.learning.tasks import PlannedTasks, Task

PATIENT = "Doe-4711"


def write(tasks: list[Task], folder: Path, sheets: int = 2, plan: Plan | None = None) -> dict[str, Any]:
    """Write a plan with its sheets, and return what its JSON holds."""
    made = plan or make_plan(
        PlannedTasks(tuple(tasks), {}), ExemplarMemory(8).quota, image_size=33, tiny_class=7, imbalance=5
    )
    write_contact_sheets(tasks, made.readable, str(folder), sheets, columns=2, tile=10)
    write_plan(made, tasks, str(folder), "own images", 33, "apache-2.0")
    content: dict[str, Any] = json.loads((folder / "plan.json").read_text())
    return content


def test_the_json_holds_the_plan(tiny: Any, tmp_path: Path) -> None:
    content = write(tiny.tasks(tmp_path / "images"), tmp_path / "plan")
    assert content["data"] == "own images"
    assert content["image_size"] == 33
    assert content["licence"] == "apache-2.0"
    assert content["tasks"][1] == {
        "name": "set1",
        "learnt_before": False,
        "classes": [
            {
                "name": name,
                "label": label,
                "train": 6,
                "validation": 2,
                "test": 3,
                "contact_sheet": f"contact_sheets/set1-{name}.png",
            }
            for label, name in ((2, "class2"), (3, "class3"))
        ],
        "train": 12,
        "validation": 4,
        "test": 6,
        "images": {"33x33 RGB": 22},
        "memory_per_class": 2,
    }
    assert [(warning["kind"], warning["count"]) for warning in content["warnings"]] == [("tiny_class", 4)]


def test_every_link_of_the_page_leads_to_a_sheet(tiny: Any, tmp_path: Path) -> None:
    tasks = tiny.tasks(tmp_path / "images")
    tasks[0] = replace(tasks[0], classes=("a|b", "c/d e"))
    write(tasks, tmp_path / "plan")
    page = (tmp_path / "plan" / "plan.md").read_text()
    links = re.findall(r"\(<(.*?)>\)", page)
    assert len(links) == 4
    assert all((tmp_path / "plan" / link).is_file() for link in links)
    assert "a\\|b" in page
    assert "- **4 classes with fewer than 7 training images**: the smallest is " in page


def test_without_sheets_nothing_is_linked(tiny: Any, tmp_path: Path) -> None:
    content = write(tiny.tasks(tmp_path / "images"), tmp_path / "plan", sheets=0)
    assert {member["contact_sheet"] for task in content["tasks"] for member in task["classes"]} == {None}
    assert "contact_sheets" not in (tmp_path / "plan" / "plan.md").read_text()


def test_a_task_learnt_before_says_so(tiny: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tasks = tiny.tasks(tmp_path / "images")
    tasks[0] = replace(tasks[0], train=())
    with caplog.at_level(logging.INFO, logger="scripts.learning.planning.report"):
        write(tasks, tmp_path / "plan")
    assert caplog.text.count("learnt before") == 3  # the task and its two classes
    assert "Plan for own images: 12 training, 8 validation and 12 test images (classes: 4, tasks: 2)" in caplog.text


def test_many_kinds_of_images_are_summed_up(tiny: Any, tmp_path: Path) -> None:
    tasks = tiny.tasks(tmp_path / "images")
    made = make_plan(PlannedTasks(tuple(tasks), {}), ExemplarMemory(8).quota, image_size=33, tiny_class=1, imbalance=5)
    kinds = {f"{size}x{size} L": 10 - size for size in range(1, 7)}
    write(tasks, tmp_path / "plan", plan=replace(made, tasks=(replace(made.tasks[0], images=kinds), made.tasks[1])))
    assert "1x1 L: 9, 2x2 L: 8, 3x3 L: 7, 3 other kinds: 15" in (tmp_path / "plan" / "plan.md").read_text()


def test_no_patient_is_written_or_logged(tiny: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tasks = [
        replace(
            task,
            train=tuple({**item, "group": PATIENT} for item in task.train),
            test=tuple({**item, "group": PATIENT} for item in task.test),
        )
        for task in tiny.tasks(tmp_path / "images")
    ]
    with caplog.at_level(logging.DEBUG):
        content = write(tasks, tmp_path / "plan")
    assert [warning["count"] for warning in content["warnings"]] == [1, 4]
    written = [path.read_bytes() for path in (tmp_path / "plan").rglob("*") if path.is_file()]
    assert len(written) == 6
    assert [content for content in written if PATIENT.encode() in content] == []
    assert PATIENT not in caplog.text
