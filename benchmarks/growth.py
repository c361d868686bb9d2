"""Print what each further task costs, from 2 to 50 tasks of two classes of small drawn images: seconds and bytes.

Seconds are those of the processor, on one thread, or with --device cuda those of the wall. Keys of the config can
follow.

python benchmarks/growth.py
python benchmarks/growth.py --tasks 10 --method acl
python benchmarks/growth.py --method dynammo+running_mean --network_def#adapter_start running_mean
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from clock import clock, machine
from monai.data import set_track_meta
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bundle"))

from scripts.commands import configs
from scripts.learning.engines import ContinualEvents, ContinualTrainer

TRAIN, TEST = 8, 2  # images a class
TINY = {
    "backbone": "mobilenet_v2",
    "network_def#sites": ["features.3", "features.5"],
    "image_size": 33,
    "memory_size": 100,
}
INFERENCE = 20  # images, five times


@dataclass
class Task:
    """What a task took: seconds by stage and in all, of inference on 20 images, and bytes."""

    seconds: dict[str, float] = field(default_factory=dict)
    inference: float = 0.0
    checkpoint: int = 0
    kept: int = 0

    @property
    def training(self) -> float:
        """Seconds of the stages alone."""
        return sum(value for name, value in self.seconds.items() if name != "rest")


class Meter:
    """Fills a `Task` a task while a trainer runs.

    Args:
        output_dir: the run's folder.
    """

    def __init__(self, output_dir: Path) -> None:
        self.output_dir = output_dir
        self.tasks: list[Task] = []
        self.device = torch.device("cpu")
        self.since: Any = None

    def attach(self, engine: ContinualTrainer) -> None:
        """Look at the clock around each stage and each task."""
        self.device = engine.state.device
        engine.add_event_handler(ContinualEvents.TASK_STARTED, self.start)
        engine.add_event_handler(ContinualEvents.STAGE_COMPLETED, self.stage)
        engine.add_event_handler(ContinualEvents.PROGRESSED, self.progress)

    def start(self) -> None:
        """A task begins."""
        self.tasks.append(Task())
        self.since = clock(self.device)

    def stage(self, engine: ContinualTrainer) -> None:
        """A stage has ended; saving it counts as the rest."""
        self._add(engine.current_stage.name)

    def progress(self, engine: ContinualTrainer) -> None:
        """A stage is saved, or a task is learnt."""
        if not self.tasks:
            return
        self._add("rest")
        if engine.stages_completed == 0:
            self._weigh(engine)
            self.since = clock(self.device)

    def _add(self, name: str) -> None:
        now = clock(self.device)
        seconds = self.tasks[-1].seconds
        seconds[name] = seconds.get(name, 0.0) + (now - self.since)
        self.since = now

    def _weigh(self, engine: ContinualTrainer) -> None:
        learnt = engine.tasks[: engine.tasks_completed]
        self.tasks[-1].checkpoint = (self.output_dir / "checkpoint.pt").stat().st_size
        self.tasks[-1].kept = engine.memory.kept_bytes() + engine.continual_network.kept_bytes()
        if engine.continual_network.backbone.branches:
            named = [{"name": task.name, "classes": task.classes} for task in learnt]
            self.tasks[-1].inference = inference(engine, named)


@torch.inference_mode()
def inference(engine: ContinualTrainer, tasks: list[dict[str, Any]]) -> float:
    """Return the median seconds that the exported network takes for a batch."""
    device = engine.state.device
    network = engine.continual_network.merge_and_unload(tasks).to(device)
    side = engine.dataset[0]["image"].shape[-1]
    images, taken = torch.rand(INFERENCE, 3, side, side, device=device), []
    for _ in range(5):
        started = clock(device)
        network(images)
        taken.append(clock(device) - started)
    return statistics.median(taken)


def write_images(folder: Path, classes: int, side: int) -> None:
    """Write an npz file with a colour a class and noise."""
    rng = np.random.default_rng(0)
    colours = rng.integers(40, 216, (classes, 1, 1, 3))
    arrays = {}
    for part, count in (("train", TRAIN), ("test", TEST)):
        labels = np.repeat(np.arange(classes), count)
        noise = rng.integers(-40, 40, (len(labels), side, side, 3))
        arrays |= {f"{part}_images": (colours[labels] + noise).astype(np.uint8), f"{part}_labels": labels[:, None]}
    np.savez(folder / "drawn.npz", **arrays)


def learn(folder: Path, tasks: int, method: str, changes: Mapping[str, Any]) -> list[Task]:
    """Learn so many tasks with the main job's handlers, and return what each took."""
    torch.set_num_threads(1)
    set_track_meta(False)
    logging.disable(logging.INFO)
    files = [configs.TRAIN, *configs.data_files("medmnist"), *configs.method_files(method)]
    parser = configs.parse_config(files, [])
    own = {"dataset_dir": str(folder), "source#sets": ["drawn.npz"], "split": 2, "output_dir": str(folder / method)}
    rates = {"adapter_epochs": 2, "finetune_epochs": 5, "batch_size": 16, "optimizer#lr": 0.01}
    parser.update({**own, **rates, "device": "cpu", **changes})
    parser["backbone_training"] = None  # an untrained backbone stays so
    write_images(folder, 2 * tasks, parser.get_parsed_content("image_size"))
    trainer = parser.get_parsed_content("train#trainer")
    meter = Meter(folder / method)
    meter.attach(trainer)
    trainer.run()
    return meter.tasks


def table(tasks: list[Task], shown: list[int]) -> str:
    """Return a row for each of the tasks asked for: the median of it and its two neighbours."""
    stages = list(dict.fromkeys(name for task in tasks for name in task.seconds))
    rows = []
    for number in shown:
        near = tasks[max(0, number - 2) : number + 1]
        seconds = [statistics.median(task.seconds.get(name, 0.0) for task in near) for name in stages]
        last = tasks[number - 1]
        sizes = [f"{value / 2**20:.2f}" for value in (last.checkpoint, last.kept)]
        time_of_batch = 1000 * statistics.median(task.inference for task in near)
        rows.append([number, *(f"{value:.2f}" for value in seconds), f"{time_of_batch:.1f}", *sizes])
    names = [name.replace("_", " ") + " (s)" for name in stages]
    return tabulate(
        rows,
        ["task", *names, f"inference, {INFERENCE} images (ms)", "checkpoint (MiB)", "kept (MiB)"],
        tablefmt="github",
        disable_numparse=True,
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=50)
    parser.add_argument("--method", default="dynammo")
    arguments, rest = parser.parse_known_args()
    changes = {key.removeprefix("--"): value for key, value in zip(rest[::2], rest[1::2], strict=True)}
    with tempfile.TemporaryDirectory() as name:
        found = learn(Path(name), arguments.tasks, arguments.method, {**TINY, **changes})
    shown = [number for number in (2, 5, 10, 20, 30, 40, 50) if number <= arguments.tasks]
    settings = "".join(f", {key} {value}" for key, value in changes.items())
    chip = machine(changes.get("device", "cpu"))
    print(f"\n{arguments.method}{settings}, {arguments.tasks} tasks of 2 classes; seconds a task; {chip}")
    print(table(found, shown))


if __name__ == "__main__":
    main()
