"""Print what training costs: balanced fine-tuning on features beside the same on images, and a step of adapter tuning.

Both sides run in one process, in turns, on one thread; the medians stand with their ratio.

make bench                                                # MobileNetV2 at 128 px, ResNet-18 at 64 px
python benchmarks/training.py --networks resnet18:224 --images 40 --tuned_images 160
python benchmarks/training.py --amp                        # a step in bfloat16 too
python benchmarks/training.py --device cuda --amp          # seconds of the GPU
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from clock import add_device, clock, machine
from edge import ChannelsFirst
from ignite.engine import Events
from monai.bundle import ConfigParser
from monai.data import set_track_meta
from monai.engines.utils import IterationEvents
from tabulate import tabulate
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bundle"))

from scripts import bundle_root
from scripts.learning.engines import ContinualEvents, ContinualTrainer

EPOCHS = 100
BATCH = 32
NETWORK, SAVING = "network", "end of the epoch"
PARTS = {  # of adapter tuning, what comes to an end with an event
    ContinualEvents.STAGE_PREPARED: "",
    Events.GET_BATCH_STARTED: "rest",
    Events.GET_BATCH_COMPLETED: "loading",
    IterationEvents.MODEL_COMPLETED: NETWORK,
    Events.ITERATION_COMPLETED: "rest",
    Events.EPOCH_COMPLETED: SAVING,
    Events.COMPLETED: "rest",
}


@dataclass(frozen=True)
class Job:
    """What is trained: a backbone on so many images of ``size`` pixels a side, in a folder that others may share."""

    folder: Path
    backbone: str
    size: int
    images: int
    device: str

    @property
    def pinned(self) -> bool:
        """Whether batches go to a GPU."""
        return self.device != "cpu"

    def trainer(self, **changes: Any) -> ContinualTrainer:
        """Return the main job's trainer with a single task of generated images."""
        parser = ConfigParser(ConfigParser.load_config_file(f"{bundle_root()}/configs/train.json"))
        places = {"dataset_dir": str(self.folder / "data"), "output_dir": str(self.folder / "run")}
        own = {"backbone": self.backbone, "image_size": self.size, "device": self.device}
        images = {"source#sets": ["clusters"], "source#train_per_class": self.images // 2}
        untested = {"source#test_per_class": 2, "source#val_per_class": 0}  # which is not measured
        parser.update({**places, **own, **images, **untested, **changes})
        return parser.get_parsed_content("train#trainer")


def finetune(job: Job, cached: bool) -> tuple[float, int, list[float]]:
    """Fine-tune the head and return the seconds, the images that passed the backbone, and the loss of each step."""
    engine = job.trainer(
        finetune_epochs=EPOCHS,
        memory_size=job.images,
        stages=["@balanced_finetuning"],
        **{"train#handlers": [], "balanced_finetuning#data": "task", "balanced_finetuning#tasks": "every"},
        **({} if cached else {"balanced_finetuning#features": None}),
    )
    passes, losses = [0], []
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda: losses.append(engine.state.output["loss"]))
    stem: Any = engine.continual_network.backbone.stem
    stem.register_forward_hook(lambda module, inputs, output: passes.append(len(inputs[0])))
    started = clock(job.device)
    engine.run()
    return clock(job.device) - started, sum(passes), [loss.item() for loss in losses]


def finetuning(jobs: list[Job], rounds: int) -> str:
    """Measure balanced fine-tuning on images and on features, and return the table."""
    rows = []
    for job in jobs:
        found = [[finetune(job, cached) for cached in (False, True)] for _ in range(rounds)]
        plain, cached = ([of_round[side] for of_round in found] for side in (0, 1))
        seconds = [statistics.median(run[0] for run in side) for side in (plain, cached)]
        apart = max(abs(a - b) for a, b in zip(plain[0][2], cached[0][2], strict=True))
        rows.append(
            [
                f"{job.backbone}, {job.size} px",
                f"{plain[0][1]} -> {cached[0][1]}",
                f"{seconds[0]:.1f} -> {seconds[1]:.2f}",
                f"{seconds[0] / seconds[1]:.1f}",
                f"{apart:.0e}",
            ]
        )
    headers = ["network", "images passed", "seconds", "ratio", "losses apart by at most"]
    what = f"{EPOCHS} epochs of {jobs[0].images} images with flips, on images -> on features"
    title = f"\nBalanced fine-tuning, {what}; {machine(jobs[0].device)}"
    return f"{title}\n{tabulate(rows, headers=headers, tablefmt='github', disable_numparse=True)}"


class Laps:
    """Divides a stage of adapter tuning into parts: the network with its gradient and SGD, and what stands outside."""

    def __init__(self, engine: ContinualTrainer, device: str) -> None:
        self.device = device
        self.ends: list[tuple[str, Any]] = []
        for event, part in PARTS.items():
            engine.add_event_handler(event, self.end, part)
        engine.continual_network.register_forward_pre_hook(self.enter)

    def enter(self, network: torch.nn.Module, inputs: Any) -> None:
        """A batch reaches the network; what is tested after the stage does not count."""
        if network.training:
            self.end("rest")

    def end(self, part: str) -> None:
        """A part ends."""
        self.ends.append((part, clock(self.device)))

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each part."""
        found = dict.fromkeys(list(PARTS.values())[1:], 0.0)
        for (_, since), (part, until) in pairwise(self.ends):
            found[part] += until - since
        return found


def tune(job: Job, **changes: Any) -> dict[str, float]:
    """Tune adapters for an epoch as the main job does, its handlers included; return the seconds of each part."""
    trained = {"backbone_training": None}
    engine = job.trainer(adapter_epochs=1, memory_size=2, restart=True, **trained, **changes)
    fill(engine)
    laps = Laps(engine, job.device)
    engine.run()
    return laps.seconds()


def fill(engine: ContinualTrainer) -> None:
    """Decode the images, so that no side pays for it."""
    engine.dataset.set_data(engine.tasks[0].train)
    for index in range(len(engine.dataset)):
        engine.dataset[index]


def plain_loop(job: Job, channels_last: bool) -> dict[str, float]:
    """Tune adapters in a loop of torch alone, on images that lie in memory as tensors; return the seconds."""
    engine = job.trainer(memory_size=2)
    engine.dataset.set_data(engine.tasks[0].train)
    items = [engine.dataset[index] for index in range(len(engine.dataset))]
    pictures, labels = torch.stack([item["image"] for item in items]), torch.tensor([item["label"] for item in items])
    network = engine.continual_network
    network.grow(2)
    network.add_adapters()
    network.add_auxiliary(3)
    if not channels_last:
        network.backbone.__class__ = ChannelsFirst
    network.train_only(["adapter", "auxiliary"])
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(learning, 0.01, momentum=0.9, weight_decay=5e-4)
    loader = DataLoader(TensorDataset(pictures, labels), batch_size=BATCH, shuffle=True, pin_memory=job.pinned)
    network.train()
    started = clock(job.device)
    for batch, targets in loader:
        flipped = torch.rand(len(batch), 1, 1, 1) < 0.5
        images = torch.where(flipped, batch.flip(3), batch).to(job.device, non_blocking=True)
        loss = cross_entropy(network(images).auxiliary, targets.to(job.device, non_blocking=True))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {NETWORK: clock(job.device) - started}


def step(jobs: list[Job], rounds: int, amp: bool) -> str:
    """Measure steps of adapter tuning beside torch alone, with ``amp`` in bfloat16 too, and return the table."""
    rows = []
    for job in jobs:
        sides = {
            "torch alone": lambda job=job: plain_loop(job, channels_last=True),
            "torch alone, channels first": lambda job=job: plain_loop(job, channels_last=False),
            "bundle": lambda job=job: tune(job),
        }
        if amp:
            sides["bundle, bfloat16 (amp)"] = lambda job=job: tune(job, **{"train#inferer#enabled": True})
        found: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
        for turn in range(rounds + 1):
            for name, measure in sides.items():
                taken = measure()
                if turn:  # the first turn warms up
                    found[name].append(taken)
        seconds = {name: statistics.median(sum(run.values()) for run in of_side) for name, of_side in found.items()}
        for name, of_side in found.items():
            measured = [f"{job.images / seconds[name]:.1f}", f"{seconds['torch alone'] / seconds[name]:.2f}"]
            rows.append([f"{job.backbone}, {job.size} px", name, *measured, *outside(of_side)])
    headers = ["network", "loop", "images/s", "ratio", "outside network, gradient and SGD", "of it loading", SAVING]
    title = f"\nAdapter tuning, an epoch of {jobs[0].images} images in batches of {BATCH}; {machine(jobs[0].device)}"
    return f"{title}\n{tabulate(rows, headers=headers, tablefmt='github', disable_numparse=True)}"


def outside(runs: list[dict[str, float]]) -> list[str]:
    """Return the shares of all that stands outside the network, of loading and of what an epoch ends with."""
    if "loading" not in runs[0]:
        return ["", "", ""]
    shares = [{part: value / sum(run.values()) for part, value in run.items()} for run in runs]
    whole = statistics.median(1 - share[NETWORK] for share in shares)
    return [
        f"{whole:.1%}",
        *(f"{statistics.median(share[part] for share in shares):.1%}" for part in ("loading", SAVING)),
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=["mobilenet_v2:128", "resnet18:64"], help="backbone:px")
    parser.add_argument("--images", type=int, default=40, help="of balanced fine-tuning; default: 40")
    parser.add_argument("--tuned_images", type=int, default=600, help="of adapter tuning; default: the main job's 600")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--amp", action="store_true", help="bfloat16 too: slow where the processor does not know it")
    add_device(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    set_track_meta(False)  # as in train.json
    tuning = partial(step, amp=arguments.amp)
    with tempfile.TemporaryDirectory() as name:
        for measure, images in ((finetuning, arguments.images), (tuning, arguments.tuned_images)):
            jobs = [
                Job(Path(name) / str(images), network, int(size), images, arguments.device)
                for network, size in (text.split(":") for text in arguments.networks)
            ]
            print(measure(jobs, arguments.rounds), flush=True)


if __name__ == "__main__":
    main()
