"""Print what inference costs as tasks are added: FLOPs and time of one merged pass, beside ACL's pass a task.

make bench                                    # ResNet-18, 224 px, 1, 4, 7 and 10 tasks
make bench ARGS='--backbone mobilenet_v2 --image_size 128'
python benchmarks/run.py --tasks 10 --batch_size 32
python benchmarks/run.py --backbone timm:deit_tiny_patch16_224 --image_size 128 --adapter bottleneck
python benchmarks/run.py --device cuda --batch_size 32      # milliseconds of the GPU
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

import torch
from clock import add_device, clock, machine
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bundle"))

from scripts.model.networks import Classifier, ContinualNet, Convolutions
from scripts.model.networks.adapters import ADAPTERS
from scripts.model.networks.cost import flops_per_image


def grown(
    backbone: str, tasks: int, merged: bool, image_size: int = 224, adapter: str = Convolutions.kind
) -> Classifier:
    """Return the inference network after ``tasks`` tasks of two classes, with adapters merged or a set a task."""
    network = ContinualNet(backbone, head="others", adapter=ADAPTERS[adapter](), image_size=image_size)
    for _ in range(tasks):
        network.grow(2)
        network.add_adapters()
    if merged:
        network.merge()
    else:
        network.unmerge()
    return network.merge_and_unload([{"name": str(task), "classes": ["a", "b"]} for task in range(tasks)])


def interleaved_medians(networks: list[Classifier], image: torch.Tensor, rounds: int) -> list[float]:
    """Return the median seconds of a forward pass of each network, where the image is, measured in turns."""
    networks = [network.to(image.device) for network in networks]
    seconds: list[list[float]] = [[] for _ in networks]
    with torch.inference_mode():
        for turn in range(rounds + 1):
            for times, network in zip(seconds, networks, strict=True):
                started = clock(image.device)
                network(image)
                seconds_taken = clock(image.device) - started
                if turn:  # the first turn warms up
                    times.append(seconds_taken)
    return [statistics.median(times) for times in seconds]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--adapter", default=Convolutions.kind, choices=sorted(ADAPTERS))
    parser.add_argument("--tasks", type=int, nargs="+", default=[1, 4, 7, 10])
    parser.add_argument("--batch_size", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    add_device(parser)
    arguments = parser.parse_args()
    size, tasks_of_plain = arguments.image_size, [{"name": "a", "classes": ["a", "b"]}]
    plain = Classifier(arguments.backbone, "unified", tasks_of_plain, image_size=size).eval()
    image = torch.rand(arguments.batch_size, 3, arguments.image_size, arguments.image_size, device=arguments.device)
    rows = []
    for tasks in arguments.tasks:
        dynammo, acl = (grown(arguments.backbone, tasks, merged, size, arguments.adapter) for merged in (True, False))
        flops = [flops_per_image(network, arguments.image_size) / 1e9 for network in (plain, dynammo, acl)]
        seconds = interleaved_medians([plain, dynammo, acl], image, arguments.rounds)
        rows.append(
            [
                tasks,
                *(f"{value:.2f}" for value in flops),
                f"{flops[2] / flops[1]:.1f}",
                *(f"{1000 * value:.1f}" for value in seconds[1:]),
                f"{seconds[2] / seconds[1]:.1f}",
            ]
        )
    headers = ["tasks", "backbone GFLOPs", "DynaMMo GFLOPs", "ACL GFLOPs", "ACL / DynaMMo: FLOPs"]
    headers += ["DynaMMo (ms)", "ACL (ms)", "time"]
    chip = machine(arguments.device)
    print(f"{arguments.backbone}, {arguments.image_size} px, batches of {arguments.batch_size}; {chip}")
    print(tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()
