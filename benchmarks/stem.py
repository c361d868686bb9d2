"""Print what a cache of the maps before the first adapter could save at most of a step of adapter tuning.

What stands before the first adapter (the stem) never learns, once the backbone is trained. Its share of a step is the
most that a cache could save; what it would keep of an image stands beside it.

python benchmarks/stem.py
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

import torch
from run import clock
from tabulate import tabulate
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode
from training import machine

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bundle"))

from scripts.networks import ContinualNet

BATCH = 8


def ready(backbone: str) -> ContinualNet:
    """Return a network whose newest adapters learn."""
    network = ContinualNet(backbone)
    network.grow(2)
    network.add_adapters()
    network.add_auxiliary(3)
    network.train_only(["adapter", "auxiliary"])
    return network.train()


def measure(backbone: str, size: int, rounds: int) -> list[str]:
    """Return the table's row of a backbone and an image size."""
    network = ready(backbone)
    images = torch.rand(BATCH, 3, size, size).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(3, (BATCH,))
    optimizer = torch.optim.SGD([value for value in network.parameters() if value.requires_grad], 0.01, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        cross_entropy(network(images).auxiliary, labels).backward()
        optimizer.step()

    def stem() -> None:
        with torch.no_grad():
            network.backbone.stem(images)

    flops, seconds = [], []
    for work in (stem, step):
        with FlopCounterMode(display=False) as counter:
            work()
        flops.append(counter.get_total_flops())
    for _ in range(rounds):
        taken = []
        for work in (stem, step):
            started = clock()
            work()
            taken.append(clock() - started)
        seconds.append(taken)
    shares = statistics.median(stem / step for stem, step in seconds)
    with torch.no_grad():
        bytes_kept = network.backbone.stem(images[:1]).nbytes
    row = [f"{backbone}, {size} px", f"{flops[0] / flops[1]:.1%}", f"{shares:.1%}", f"{bytes_kept / 1024:.0f}"]
    return [*row, f"{size * size * 3 / 1024:.0f}"]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = ["mobilenet_v2:128", "mobilenet_v2:224", "resnet18:64", "resnet18:128", "resnet18:224"]
    parser.add_argument("--networks", nargs="+", default=default, help="backbone:px")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for text in arguments.networks:
        name, size = text.split(":")
        rows.append(measure(name, int(size), arguments.rounds))
    headers = ["network", "stem / step: FLOPs", "seconds", "map of a view (KiB)", "image as bytes (KiB)"]
    print(f"\nBatches of {BATCH}; {machine()}\n{tabulate(rows, headers, tablefmt='github', disable_numparse=True)}")


if __name__ == "__main__":
    main()
