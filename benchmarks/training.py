"""Print what training costs: balanced fine-tuning on features beside the same on images, and a step of adapter tuning.

Both sides run in one process, in turns, on one thread; the medians stand with their ratio.

make bench                                                # MobileNetV2 at 128 px, ResNet-18 at 64 px
python benchmarks/training.py --networks resnet18:224 --images 40
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from monai.bundle import ConfigParser
from monai.data import set_track_meta
from monai.engines.utils import IterationEvents
from tabulate import tabulate
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bundle"))

from scripts import bundle_root
from scripts.engines import ContinualEvents, ContinualTrainer

EPOCHS = 100
BATCH = 32


def trainer(folder: Path, **changes: Any) -> ContinualTrainer:
    """Return the main job's trainer with a single task of generated images."""
    parser = ConfigParser(ConfigParser.load_config_file(f"{bundle_root()}/configs/train.json"))
    own = {"dataset_dir": str(folder / "data"), "output_dir": str(folder / "run"), "device": "cpu"}
    parser.update({**own, "source#sets": ["clusters"], **changes})
    return parser.get_parsed_content("train#trainer")


def finetune(folder: Path, name: str, size: int, images: int, cached: bool) -> tuple[float, int, list[float]]:
    """Fine-tune the head and return the seconds, the images that passed the backbone, and the loss of each step."""
    engine = trainer(
        folder,
        backbone=name,
        image_size=size,
        finetune_epochs=EPOCHS,
        **{"train#handlers": []},
        stages=["@balanced_finetuning"],
        **{"source#root#train_per_class": images // 2, "balanced_finetuning#data": "task"},
        **{"balanced_finetuning#tasks": "every", "memory_size": images},
        **({} if cached else {"balanced_finetuning#features": None}),
    )
    passes, losses = [0], []
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda: losses.append(engine.state.output["loss"]))
    stem: Any = engine.continual_network.backbone.stem
    stem.register_forward_hook(lambda module, inputs, output: passes.append(len(inputs[0])))
    started = time.process_time()
    engine.run()
    return time.process_time() - started, sum(passes), [loss.item() for loss in losses]


def finetuning(networks: list[str], images: int, rounds: int) -> str:
    """Measure balanced fine-tuning on images and on features, and return the table."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for network, size in (text.split(":") for text in networks):
            found = [
                [finetune(Path(name), network, int(size), images, cached) for cached in (False, True)]
                for _ in range(rounds)
            ]
            plain, cached = ([of_round[side] for of_round in found] for side in (0, 1))
            seconds = [statistics.median(run[0] for run in side) for side in (plain, cached)]
            apart = max(abs(a - b) for a, b in zip(plain[0][2], cached[0][2], strict=True))
            rows.append(
                [
                    f"{network}, {size} px",
                    f"{plain[0][1]} -> {cached[0][1]}",
                    f"{seconds[0]:.1f} -> {seconds[1]:.2f}",
                    f"{seconds[0] / seconds[1]:.1f}",
                    f"{apart:.0e}",
                ]
            )
    headers = ["network", "images passed", "seconds", "ratio", "losses apart by at most"]
    title = (
        f"\nBalanced fine-tuning, {EPOCHS} epochs of {images} images with flips, on images -> on features; {machine()}"
    )
    return f"{title}\n{tabulate(rows, headers=headers, tablefmt='github', disable_numparse=True)}"


class Clock:
    """Takes the CPU seconds of a stage, and how much of them a step spends on the network, its gradient and SGD."""

    def __init__(self) -> None:
        self.started = self.entered = self.total = self.inside = 0.0

    def attach(self, engine: ContinualTrainer) -> None:
        """Look at the clock around the stage and in each step."""
        engine.add_event_handler(ContinualEvents.STAGE_PREPARED, self.start)
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self.leave)
        engine.add_event_handler(ContinualEvents.ADAPTER_TUNING_COMPLETED, self.stop)
        engine.continual_network.register_forward_pre_hook(lambda network, inputs: self.enter())

    def start(self) -> None:
        """The stage begins."""
        self.started = time.process_time()

    def enter(self) -> None:
        """A batch reaches the network."""
        self.entered = time.process_time()

    def leave(self) -> None:
        """The weights are changed."""
        self.inside += time.process_time() - self.entered

    def stop(self) -> None:
        """The stage ends."""
        self.total = time.process_time() - self.started


def tune(folder: Path, name: str, size: int, images: int, epochs: int, **changes: Any) -> tuple[float, float]:
    """Tune adapters as the main job does, its handlers included; return seconds, and the share outside the network."""
    own = {"backbone": name, "image_size": size, "adapter_epochs": epochs, "source#root#train_per_class": images // 2}
    first = {"stages#0#_disabled_": True, "memory_size": 2, "restart": True, "models_dir": None}
    engine = trainer(folder, **{**own, **first, "train#handlers#2#_disabled_": True, **changes})
    fill(engine)
    clock = Clock()
    clock.attach(engine)
    engine.run()
    return clock.total, 1 - clock.inside / clock.total


def fill(engine: ContinualTrainer) -> None:
    """Decode the images, so that no side pays for it."""
    engine.dataset.set_data(engine.tasks[0].train)
    for index in range(len(engine.dataset)):
        engine.dataset[index]


def plain_loop(folder: Path, name: str, size: int, images: int, epochs: int, channels_last: bool) -> float:
    """Tune adapters in a loop of torch alone, on images that lie in memory as tensors; return the seconds."""
    engine = trainer(
        folder, backbone=name, image_size=size, **{"source#root#train_per_class": images // 2, "memory_size": 2}
    )
    engine.dataset.set_data(engine.tasks[0].train)
    items = [engine.dataset[index] for index in range(len(engine.dataset))]
    pictures, labels = torch.stack([item["image"] for item in items]), torch.tensor([item["label"] for item in items])
    network = engine.continual_network
    network.grow(2)
    network.add_adapters()
    network.add_auxiliary(3)
    network.backbone.spatial_dims = 2 if channels_last else 0  # of images alone are the channels moved
    network.train_only(["adapter", "auxiliary"])
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(learning, 0.01, momentum=0.9, weight_decay=5e-4)
    loader = DataLoader(TensorDataset(pictures, labels), batch_size=BATCH, shuffle=True)
    network.train()
    started = time.process_time()
    for _ in range(epochs):
        for batch, targets in loader:
            flipped = torch.rand(len(batch), 1, 1, 1) < 0.5
            loss = cross_entropy(network(torch.where(flipped, batch.flip(3), batch)).auxiliary, targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return time.process_time() - started


def step(networks: list[str], images: int, rounds: int) -> str:
    """Measure a step of adapter tuning beside torch alone, and return the table."""
    rows = []
    epochs = 2
    with tempfile.TemporaryDirectory() as folder:
        for network, size in (text.split(":") for text in networks):
            own: tuple[Any, ...] = (Path(folder), network, int(size), images, epochs)
            sides = {
                "torch alone": lambda own=own: (plain_loop(*own, channels_last=True), 0.0),
                "torch alone, channels first": lambda own=own: (plain_loop(*own, channels_last=False), 0.0),
                "bundle": lambda own=own: tune(*own),
                "bundle, bfloat16 (amp)": lambda own=own: tune(*own, amp=True),
            }
            found: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
            for turn in range(rounds + 1):
                for name, measure in sides.items():
                    taken = measure()
                    if turn:  # the first turn warms up
                        found[name].append(taken)
            rates = {name: images * epochs / statistics.median(run[0] for run in of) for name, of in found.items()}
            for name, of_side in found.items():
                outside = statistics.median(run[1] for run in of_side)
                ratio = rates[name] / rates["torch alone"]
                share = f"{outside:.1%}" if name.startswith("bundle") else ""
                rows.append([f"{network}, {size} px", name, f"{rates[name]:.1f}", f"{ratio:.2f}", share])
    headers = ["network", "loop", "images/s", "ratio", "outside network, gradient and SGD"]
    title = f"\nAdapter tuning, batches of {BATCH}; {machine()}"
    return f"{title}\n{tabulate(rows, headers=headers, tablefmt='github', disable_numparse=True)}"


def machine() -> str:
    """Return the processor's name and the threads in use."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {torch.get_num_threads()} thread"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=["mobilenet_v2:128", "resnet18:64"], help="backbone:px")
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    set_track_meta(False)  # as in train.json
    print(finetuning(arguments.networks, arguments.images, arguments.rounds))
    print(step(arguments.networks, 2 * BATCH, arguments.rounds))


if __name__ == "__main__":
    main()
