"""Print what DynaMMo, ACL and Joint cost at 1, 4 and 10 tasks: FLOPs, milliseconds, seconds of training, bytes kept.

FLOPs (2 x multiply-adds) and milliseconds of one image through the exported network; training on small drawn
images (benchmarks/growth.py), whose seconds are those of the processor, on one thread, or with --device cuda those
of the wall. Joint begins anew with all images of all tasks so far, which it must keep.

python benchmarks/cost.py
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from clock import add_device, machine
from growth import TRAIN, learn
from run import grown, interleaved_medians
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bundle"))

from scripts.model.networks import Classifier
from scripts.model.networks.cost import flops_per_image

TRAINED = 64  # pixels a side


def trained(method: str, tasks: int, **changes: Any) -> tuple[list[float], list[float]]:
    """Return, after each task, the seconds of training so far and the MiB kept."""
    with tempfile.TemporaryDirectory() as name:
        found = learn(Path(name), tasks, method, {"image_size": TRAINED, **changes})
    seconds = [sum(task.training for task in found[: number + 1]) for number in range(tasks)]
    return seconds, [task.kept / 2**20 for task in found]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--tasks", type=int, nargs="+", default=[1, 4, 10])
    parser.add_argument("--rounds", type=int, default=5)
    add_device(parser)
    arguments = parser.parse_args()
    backbone, most = arguments.backbone, max(arguments.tasks)
    shared = {"backbone": backbone, "device": arguments.device}
    found = {method: trained(method, most, memory_size=4 * most, **shared) for method in ("dynammo", "acl")}
    # Joint learns when its last task is there: a run a number of tasks
    joint = {tasks: trained("joint", tasks, **shared)[0][-1] for tasks in arguments.tasks}
    images = {tasks: 2 * TRAIN * tasks * TRAINED**2 * 3 / 2**20 for tasks in arguments.tasks}
    image = torch.rand(1, 3, arguments.image_size, arguments.image_size, device=arguments.device)
    rows = []
    for tasks in arguments.tasks:
        plain = Classifier(backbone, "unified", [{"name": "a", "classes": ["x"] * 2 * tasks}]).eval()
        networks = [grown(backbone, tasks, True), grown(backbone, tasks, False), plain]
        seconds = interleaved_medians(networks, image, arguments.rounds)
        training = [found["dynammo"][0][tasks - 1], found["acl"][0][tasks - 1], joint[tasks]]
        kept = [found["dynammo"][1][tasks - 1], found["acl"][1][tasks - 1], images[tasks]]
        for place, method in enumerate(("DynaMMo", "ACL", "Joint")):
            flops = flops_per_image(networks[place], arguments.image_size) / 1e9
            measured = [f"{flops:.2f}", f"{1000 * seconds[place]:.0f}", f"{training[place]:.1f}", f"{kept[place]:.1f}"]
            rows.append([tasks, method, *measured])
    title = f"{backbone}, inference at {arguments.image_size} px, training at {TRAINED} px; {machine(arguments.device)}"
    headers = ["tasks", "method", "GFLOPs an image", "ms an image", "seconds of training so far", "kept (MiB)"]
    print(f"\n{title}\n{tabulate(rows, headers, tablefmt='github', disable_numparse=True)}")


if __name__ == "__main__":
    main()
