"""Print what more processes, and more classes, take on the cores at hand.

`processes`: the same training by 1, 2, ... processes of torchrun, seconds of the wall by stage; the images a step of
each process stay as many, so that a step takes more of them. `classes`: the sums of a head in closed form, and solving
it, seconds of the clock for one thread.

python benchmarks/scaling.py processes
python benchmarks/scaling.py processes --method frozen+levels+ridge --counts 1 2 4
python benchmarks/scaling.py classes
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from clock import clock, machine
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bundle"))

from scripts import child_environment
from scripts.commands.configs import CONFIGS, TRAIN, method_files, run_arguments
from scripts.learning.features.sums import FeatureSums
from scripts.model.networks.closed_form import ridge

SMALL = {"image_size": 64, "source#train_per_class": 100, "source#test_per_class": 50, "source#val_per_class": 10}
SMALL |= {"backbone_epochs": 1, "adapter_epochs": 2, "finetune_epochs": 5, "batch_size": 16, "device": "cpu"}
SETS = "['clusters','fibres']"
IMAGES = 20  # a class


def seconds_of(count: int, method: str, folder: Path) -> dict[str, float]:
    """Learn by so many processes, and return the seconds of each stage and of all."""
    # the first count draws the images, before its first stage
    files = [TRAIN, *method_files(method), CONFIGS / "multi_gpu_train.json"]
    places = {"dataset_dir": folder / "images", "output_dir": folder / f"run{count}", "source#sets": SETS}
    words = [word for key, value in {**SMALL, **places}.items() for word in (f"--{key}", str(value))]
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}"]
    command = [*start, "-m", "monai.bundle", *run_arguments(files, words)]
    subprocess.run(command, env=child_environment(OMP_NUM_THREADS="1"), check=True, capture_output=True)
    timing = json.loads((folder / f"run{count}" / "timing.json").read_text())
    found: dict[str, float] = {}
    for stage in timing["stages"]:
        found[stage["stage"]] = found.get(stage["stage"], 0.0) + stage["seconds"]
    return {**found, "all": timing["seconds"]}


def processes(counts: Sequence[int], method: str) -> str:
    """Return a row a stage: its seconds by each number of processes."""
    with tempfile.TemporaryDirectory() as name:
        taken = [seconds_of(count, method, Path(name)) for count in counts]
    rows = [[stage, *(found[stage] for found in taken)] for stage in taken[0]]
    headers = ["stage", *(f"{count} process{'es' if count > 1 else ''} (s)" for count in counts)]
    cores = os.cpu_count()
    return f"{method} on {cores} cores, {machine()} a process.\n\n" + tabulate(rows, headers, "github", floatfmt=".1f")


def classes(widths: Sequence[int] = (512, 960), counts: Sequence[int] = (10, 100, 1000)) -> str:
    """Return what the sums take, by the width of the features and the number of classes."""
    torch.set_num_threads(1)
    rows = []
    for width in widths:
        for count in counts:
            labels = torch.arange(count).repeat_interleave(IMAGES)
            vectors = torch.randn(len(labels), width + 1, dtype=torch.double)
            sums = FeatureSums()
            begun = clock()
            sums.add(vectors, labels)
            added = clock() - begun
            begun = clock()
            ridge(sums.second[0], sums.first, 0.1)
            solved = clock() - begun
            apart = count * (width + 1) ** 2 * 8 / 2**20
            rows.append([width, count, sums.kept_bytes() / 2**20, apart, 1000 * added / count, solved])
    headers = ["features", "classes", "sums (MiB)", "kept apart (MiB)", "to add a class (ms)", "to solve (s)"]
    said = f"{IMAGES} images a class, whose features are known; {machine()}."
    return f"{said}\n\n{tabulate(rows, headers, 'github', floatfmt=('', '', '.1f', '.0f', '.1f', '.2f'))}"


def main() -> None:
    """Print the table asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("word", choices=("processes", "classes"))
    parser.add_argument("--method", default="dynammo", help="with parts after +; default: dynammo")
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 2], help="processes; default: 1 2")
    given = parser.parse_args()
    print(classes() if given.word == "classes" else processes(given.counts, given.method))


if __name__ == "__main__":
    main()
