"""Print what computing the maps before the first adapter once saves of a stage of adapter tuning.

What stands before the first adapter (the stem) never learns, once the backbone is trained. A stage of E epochs over
images with V views either passes each image through it E times, or V times and then reads its maps
(`scripts.learning.features.StemMaps`). Of prompts on a vision transformer the pass of the query stands there too.

python benchmarks/stem.py
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

import torch
from clock import clock, machine
from tabulate import tabulate
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bundle"))

from scripts.model.networks import L2P, CodaPrompt, ContinualNet, Convolutions, DualPrompt, StemMapReader
from scripts.model.networks.adapters import Adapter

BATCH = 8
VIEWS = 4  # of two flips
EPOCHS = 12
NETWORKS = (  # the published sites, then late ones
    *("mobilenet_v2:128", "mobilenet_v2:224", "resnet18:64", "resnet18:128", "resnet18:224"),
    *("mobilenet_v2:128:features.12,features.15", "resnet18:128:layer3,layer4", "resnet18:128:layer4"),
)
PROMPTS = {"l2p": L2P(), "dualprompt": DualPrompt(), "coda_prompt": CodaPrompt()}
TRANSFORMER, SIDE = "timm:deit_tiny_patch16_224", 128  # of the prompts


def ready(backbone: str, size: int, adapter: Adapter, sites: list[str] | None) -> ContinualNet:
    """Return a network whose newest adapters learn."""
    network = ContinualNet(backbone, adapter=adapter, sites=sites, image_size=size)
    network.grow(2)
    network.add_adapters()
    network.add_auxiliary(3)
    network.train_only(["adapter", "auxiliary"])
    return network.train()


def measure(network: ContinualNet, where: str, rounds: int) -> list[str]:
    """Return the table's row of a network, with its adapters at ``where``."""
    size = network.image_size
    reader = StemMapReader(network)
    below = network.backbone.below_adapters
    images = torch.rand(BATCH, 3, size, size)
    labels = torch.randint(3, (BATCH,))
    optimizer = torch.optim.SGD([value for value in network.parameters() if value.requires_grad], 0.01, momentum=0.9)
    with torch.no_grad():
        kept = list(below(images).contiguous())

    def step(read: nn.Module, batch: Tensor) -> None:
        optimizer.zero_grad()
        outputs = read(batch)
        (cross_entropy(outputs.auxiliary, labels) + sum(outputs.penalties.values())).backward()
        optimizer.step()

    def stem() -> None:
        with torch.no_grad():
            below(images)

    def forward() -> None:
        with torch.no_grad():
            network(images)

    flops, seconds = [], []
    for work in (stem, forward):
        with FlopCounterMode(display=False) as counter:
            work()
        flops.append(counter.get_total_flops())
    for _ in range(rounds):
        taken = []
        for work in (lambda: step(network, images), lambda: step(reader, torch.stack(kept)), stem):
            started = clock()
            work()
            taken.append(clock() - started)
        seconds.append(taken)
    once = statistics.median(maps / whole for whole, maps, _ in seconds)
    stage = statistics.median((EPOCHS * maps + VIEWS * alone) / (EPOCHS * whole) for whole, maps, alone in seconds)
    bytes_kept = VIEWS * kept[0].nbytes
    row = [f"{network.backbone.name}, {size} px", where, f"{flops[0] / flops[1]:.0%}", f"{once:.2f}", f"{stage:.2f}"]
    return [*row, f"{bytes_kept / 1024:.0f}", f"{size * size * 3 / 1024:.0f}"]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), help="backbone:px, or backbone:px:site,site")
    parser.add_argument("--prompts", nargs="*", default=list(PROMPTS), help=f"on {TRANSFORMER}")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for text in arguments.networks:
        name, size, *sites = text.split(":")
        network = ready(name, int(size), Convolutions(), sites[0].split(",") if sites else None)
        rows.append(measure(network, sites[0] if sites else "as published", arguments.rounds))
    for name in arguments.prompts:
        rows.append(measure(ready(TRANSFORMER, SIDE, PROMPTS[name], None), name, arguments.rounds))
    headers = ["network", "sites", "stem / forward: FLOPs", "step on maps / on images", "stage", "maps (KiB)", "image"]
    print(f"\nBatches of {BATCH}; {machine()}\n{tabulate(rows, headers, tablefmt='github', disable_numparse=True)}")


if __name__ == "__main__":
    main()
