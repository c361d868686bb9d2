"""Train methods on real images, several seeds each, and print one table.

    python benchmarks/accuracy.py skin8 --methods dynammo dynammo_others acl --seeds 1 2 3

A run that is finished is not trained again, one that was interrupted goes on. The table is printed and written to
``benchmarks/results/<data>.md``; a cell that was not run is empty. Images come from the folder CONTINUAL_TEST_DATA
(default ``../shared/data``); without it there is nothing to run.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import statistics
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tabulate import tabulate

ROOT = Path(__file__).resolve().parent.parent
BUNDLE = ROOT / "bundle"
RUNS = BUNDLE / "runs" / "benchmarks"
TEST_DATA = Path(os.environ.get("CONTINUAL_TEST_DATA", ROOT.parent / "shared" / "data")).resolve()
OVERLAYS = {"skin8": "skin8", "blood": "medmnist", "chain": "medmnist", "histopath": "path16"}
HISTOPATH = {  # our names of the tasks, in order, and the classes of histopath_pack.zip that they hold
    "breast": "IDC50/",
    "oral": "ORAL/",
    "breakhis": "BREAKHIS400/",
    "bone": "OSTEO/",
    "colorectal": "CRC7K/",
    "lung": "LC25000/lung",
    "colon": "LC25000/colon",
}
METHODS = ("dynammo", "dynammo_others", "acl", "finetune", "joint")
# glibc otherwise gives the memory of each step back to the system: a third of the time of a step, on the same results
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**32)}
COLUMNS = {
    "final_mean_class_recall": "last MCR",
    "average_mean_class_recall": "average MCR",
    "final_accuracy": "last accuracy",
    "average_accuracy": "average accuracy",
    "forgetting": "forgetting",
}


def dataset_folder(data: str) -> Path:
    """Return the folder with the images of ``data``; those in zips are unpacked once."""
    if data == "histopath":
        return pathology_tree()
    if data != "skin8":
        return TEST_DATA
    folder = BUNDLE / "data" / "skin8"
    if not (folder / "labels.csv").is_file():
        with zipfile.ZipFile(TEST_DATA / "skin8_isic_180.zip") as archive:
            archive.extractall(folder)
    return folder


def pathology_tree() -> Path:
    """Unpack ``histopath_pack.zip`` as PATH16's tree, one data set a task; its few validation images test too."""
    root = BUNDLE / "data" / "histopath"
    tree = root / "Pathology16"
    if tree.is_dir():
        return root
    with zipfile.ZipFile(TEST_DATA / "histopath_pack.zip") as archive:
        for row in csv.DictReader(io.TextIOWrapper(archive.open("labels.csv"), "utf-8")):
            for task, prefix in HISTOPATH.items():
                if row["label"].startswith(prefix):
                    split = "train" if row["split"] == "train" else "test"
                    path = Path(f"{tree}.partial", task, split, Path(row["label"]).name, Path(row["path"]).name)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(archive.read(row["path"]))
    Path(f"{tree}.partial").rename(tree)
    return root


def train(data: str, method: str, seed: int, threads: int) -> Path:
    """Run one training (or finish it) in a process of its own and return its folder."""
    folder = RUNS / f"{data}-{method}-s{seed}"
    files = [
        "configs/train.json",
        f"configs/datasets/{OVERLAYS[data]}.json",
        str(ROOT / "benchmarks" / "configs" / "common.json"),
        str(ROOT / "benchmarks" / "configs" / f"{data}.json"),
        f"configs/methods/{method}.json",
    ]
    options = {"dataset_dir": dataset_folder(data), "test_data": TEST_DATA, "output_dir": folder, "seed": seed}
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(files), "--models_dir", str(folder)]
    for key, value in options.items():
        command += [f"--{key}", str(value)]
    log = folder.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file:
        environment = {**os.environ, **ALLOCATOR, "OMP_NUM_THREADS": str(threads)}
        code = subprocess.run(command, cwd=BUNDLE, stdout=file, stderr=file, env=environment, check=False).returncode
    print(f"{data} {method} seed {seed}: {'done' if code == 0 else f'FAILED, see {log}'}", file=sys.stderr, flush=True)
    return folder


def results(data: str, method: str, seeds: list[int]) -> list[dict[str, Any]]:
    """Read the metrics of the runs that have finished."""
    found = []
    for seed in seeds:
        folder = RUNS / f"{data}-{method}-s{seed}"
        if (folder / "metrics.json").is_file():
            found.append(json.loads((folder / "metrics.json").read_text()))
    return found


def cell(values: list[float | None]) -> str:
    """Return mean and standard deviation in per cent; empty where something is missing."""
    known = [100 * value for value in values if value is not None]
    if not known or len(known) < len(values):
        return ""
    deviation = f" ({statistics.stdev(known):.1f})" if len(known) > 1 else ""
    return f"{statistics.mean(known):.1f}{deviation}"


def table(data: str, methods: list[str], seeds: list[int]) -> str:
    """Set the results as a Markdown table: mean (standard deviation) over the seeds."""
    rows = []
    for method in methods:
        runs = results(data, method, seeds)
        if not runs:
            rows.append([method, 0])
            continue
        rows.append(
            [method, len(runs)]
            + [cell([run[key] for run in runs]) for key in COLUMNS]
            + [f"{runs[0]['flops_per_image'] / 1e9:.2f}"]
        )
    headers = ["method", "seeds", *COLUMNS.values(), "GFLOPs an image"]
    return tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True)


def main() -> None:
    """Train what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", choices=sorted(OVERLAYS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--threads", type=int, default=1, help="threads a run")
    arguments = parser.parse_args()
    if not TEST_DATA.is_dir():
        sys.exit(f"no real images: {TEST_DATA} does not exist (set CONTINUAL_TEST_DATA)")
    dataset_folder(arguments.data)
    wanted = [(method, seed) for seed in arguments.seeds for method in arguments.methods]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(lambda run: train(arguments.data, *run, arguments.threads), wanted))
    text = table(arguments.data, arguments.methods, arguments.seeds)
    target = ROOT / "benchmarks" / "results" / f"{arguments.data}.md"
    target.parent.mkdir(exist_ok=True)
    target.write_text(f"# {arguments.data}: mean (standard deviation), per cent\n\n{text}\n")
    print(text)


if __name__ == "__main__":
    main()
