"""How long a training will take on this machine, and how much memory: a few batches of it are rehearsed."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scripts import child_environment
from scripts.learning.planning.plan import Plan
from scripts.learning.sources.source import Item
from scripts.learning.tasks.labels import numbers_of, shifted
from scripts.learning.tasks.planned import PlannedTasks
from scripts.learning.tasks.split import thin
from scripts.learning.tasks.task import Task
from scripts.utils.files import last_line
from scripts.utils.running import running_parser

REHEARSED_TASKS = 2  # the first, and one that follows another


@dataclass(frozen=True)
class Estimate:
    """What a training will take.

    Args:
        seconds: from the command's start to its end.
        memory: bytes of the process, at most.
        gpu_memory: bytes on the GPU, at most; ``None`` without one.
        parts: seconds by part: ``start``, ``reading`` (every image is decoded before), each stage, and ``between``
            (exemplars, tests, files).
        steps: seconds of a step, by stage.
        fault: why there is none of all this; empty where there is.
    """

    seconds: float = 0.0
    memory: int = 0
    gpu_memory: int | None = None
    parts: dict[str, float] | None = None
    steps: dict[str, float] | None = None
    fault: str = ""


def estimate_training(planned: PlannedTasks, plan: Plan, batch_size: int, batches: int) -> Estimate | None:
    """Train two epochs of a few batches of each stage in a process of its own, and say what all of it will take.

    The training is that of the config which is being resolved, with every handler and file that it writes, on two
    tasks, in a folder that is then removed. The backbone's weights are random: nothing is downloaded.

    Args:
        planned: what would be trained.
        plan: which images can be read, and how long it took to read them.
        batch_size: images a step.
        batches: of each task that are trained on; 0: nothing is rehearsed, and there is no estimate.
    """
    if not batches:
        return None
    with tempfile.TemporaryDirectory() as folder:
        config, measured, log = (Path(folder, name) for name in ("config.json", "measured.json", "log"))
        tasks = Path(folder, "tasks.json")
        tasks.write_text(json.dumps([_plain(task) for task in _readable(planned.tasks, plan)]))
        rehearsal = _rehearsal(tasks, measured, Path(folder, "run"), batches * batch_size)
        config.write_text(json.dumps(rehearsal, default=str))
        started = time.perf_counter()
        with open(log, "wb") as output:
            command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(config)]
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=child_environment()
            )
        whole = time.perf_counter() - started
        if done.returncode or not measured.is_file():
            return Estimate(fault=last_line(log))
        found: dict[str, Any] = json.loads(measured.read_text())
    stages = {stage["name"]: stage for stage in found["stages"]}
    parts = {"start": whole - found["run"], "reading": plan.seconds}
    parts |= {**{name: stage["seconds"] for name, stage in stages.items()}, "between": found["rest"]}
    steps = {name: stage["step"] for name, stage in stages.items()}
    return Estimate(sum(parts.values()), found["memory"], found["gpu_memory"], parts, steps)


def planned_in(file: str) -> PlannedTasks:
    """Read the tasks that :func:`estimate_training` wrote."""
    content = json.loads(Path(file).read_text())
    return PlannedTasks(tuple(Task(**{key: _tupled(value) for key, value in task.items()}) for task in content), {})


def rehearsed_tasks(planned: PlannedTasks, images: int) -> list[Task]:
    """Return the last tasks, as if they were the first ones, with a few of their images, at even distances.

    A task that was learnt before has but its test images, which are then trained on.

    Args:
        planned: what would be trained.
        images: of each task, to train on; as many to test and to validate with, at most.
    """
    found: list[Task] = []
    for task in planned.tasks[-REHEARSED_TASKS:]:
        first = sum(len(other.classes) for other in found)
        train, validation, test = (
            tuple(_few(part, task, images, first - task.first))
            for part in (task.train or task.test, task.validation, task.test)
        )
        if train:
            found.append(Task(task.name, task.classes, first, train, test, validation))
    return found


def _few(items: Sequence[Item], task: Task, images: int, shift: int) -> list[Item]:
    """Return some items of each class, as many of each as it has of all."""
    found: dict[int, Item] = {}
    for label in range(task.first, task.first + len(task.classes)):
        own = [item for item in items if label in numbers_of(item)]
        count = max(1, round(images * len(own) / max(1, len(items))))
        found |= {id(item): {**item, "label": shifted(item["label"], shift)} for item in thin(own, count)}
    return list(found.values())


def _rehearsal(tasks: Path, measured: Path, run: Path, images: int) -> dict[str, Any]:
    """Return the config that is being resolved, changed into that of a rehearsal."""
    config = deepcopy(dict(running_parser().get()))
    room = "scripts.learning.planning"
    config["run"] = [{"_target_": "scripts.utils.process.prepare_process"}, "$@train#trainer.run()"]
    config |= {"output_dir": str(run), "previous": None, "restart": False}
    config["planned_tasks"] = {"_target_": f"{room}.planned_in", "file": str(tasks)}
    config["tasks"] = {"_target_": f"{room}.rehearsed_tasks", "planned": "@planned_tasks", "images": images}
    config["network_def"]["weights"] = None
    config["train"]["handlers"].append(
        {
            "_target_": "scripts.learning.handlers.RehearsalHandler",
            "planned": "@planned_tasks",
            "evaluator": "@validate#evaluator",
            "batch_size": "@batch_size",
            "file": str(measured),
        }
    )
    return config


def _readable(tasks: Sequence[Task], plan: Plan) -> list[Task]:
    kept = [[tuple(item for item in part if item["image"] in plan.readable) for part in task.parts] for task in tasks]
    return [
        replace(task, train=train, validation=validation, test=test)
        for task, (train, validation, test) in zip(tasks, kept, strict=True)
    ]


def _plain(task: Task) -> dict[str, Any]:
    """Return a task without the patients that its images are of."""
    parts = ("train", "validation", "test")
    items = {part: [{key: item[key] for key in ("image", "label")} for item in getattr(task, part)] for part in parts}
    return {"name": task.name, "classes": task.classes, "first": task.first, **items}


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
