"""What pretraining without labels is worth: a frozen backbone that starts untrained, pretrained here, or from ImageNet.

    python benchmarks/pretraining.py skin8 --epochs 20
    python benchmarks/pretraining.py volumes --epochs 100

``skin8``: MobileNetV2 is pretrained at 64 px, by SimSiam and by MoCo v2, on the training images of the shared sets of
``accuracy.py modalities`` (blood, pathology, skin, what MedNIST has), whose labels are not read; SKIN8's are among
them. ``volumes``: ResNet-18 in three dimensions, on generated volumes. Then the frozen backbone learns the data set in
tasks with a head in closed form on all levels (``frozen+levels+ridge``), seed 1. Beside them: a backbone as it is
drawn, which takes only BatchNorm's statistics from the first task, and one that learns the labels of that task before
it is frozen. A run that was stopped goes on. The table goes to ``benchmarks/results/<data>_pretraining.md``.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path

from accuracy import BUNDLE, RESULTS, TEST_DATA, dataset_folder, output_folder, require_images
from clock import machine
from tabulate import tabulate

from scripts.commands.terminal import end_or_stop
from scripts.utils.errors import UserError
from scripts.utils.files import last_line, write_atomically

METHOD = "frozen+levels+ridge"
COLUMNS = ("effective_rank_score", "nearest_neighbour_accuracy")
IMAGENET = TEST_DATA / "weights" / "mobilenet_v2_imagenet_from_tflite_int8.pth"
KEYS = {
    "skin8": ["--backbone", "mobilenet_v2", "--image_size", "64", "--batch_size", "64"],
    "volumes": ["--network", "resnet18_3d", "--batch_size", "32"],
}
VOLUMES = ["generated_volumes", "--dataset_dir", str(BUNDLE / "data" / "generated_volumes")]


def images(data: str) -> tuple[list[str], list[str]]:
    """Return the words for what a backbone is pretrained on, and for what is learnt in tasks."""
    if data == "volumes":
        return VOLUMES, VOLUMES
    return [str(dataset_folder("modalities"))], ["skin8", "--dataset_dir", str(dataset_folder("skin8"))]


def run(command: str, words: list[str], folder: Path) -> Path:
    """Run or finish a command of the bundle, and return its folder.

    Raises:
        UserError: where it ends with an error.
    """
    log = folder.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        all_words = [sys.executable, "-m", "scripts.commands", command, *words, "--output_dir", str(folder)]
        done = subprocess.run(all_words, cwd=BUNDLE, stdout=file, stderr=file, check=False)
    if done.returncode:
        raise UserError(f"{command} failed: {last_line(log)} ({log})")
    return folder


def row(name: str, folder: Path, pretrained: Path | None = None) -> list[object]:
    """Return a row of the table; of a pretraining also how its features ended."""
    found = json.loads((folder / "metrics.json").read_text())
    cells: list[object] = [name, *(100 * found[f"{key}_mean_class_recall"] for key in ("final", "average"))]
    if pretrained is None:
        return cells
    with (pretrained / "pretraining.csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    return [*cells, *(float(last[name]) if last[name] else None for name in COLUMNS)]


def table(data: str, epochs: int) -> str:
    """Run what is missing, and return the table."""
    pool, learnt = images(data)
    root, keys = output_folder(f"pretraining_{data}"), KEYS[data]
    starts = {"as it is drawn": ["--backbone_epochs", "1", "--optimizer#lr", "1e-12"], "labels of the first task": []}
    if data != "volumes":
        starts["ImageNet"] = ["--weights", str(IMAGENET)]
    rows = []
    for name, words in starts.items():
        folder = root / name.replace(" ", "_")
        rows.append(row(name, run("train", [*learnt, "--method", METHOD, "--seed", "1", *keys, *words], folder)))
    for method in ("simsiam", "moco"):
        words = [*pool, "--method", method, "--backbone_epochs", str(epochs), *keys]
        pretrained = run("pretrain", words, root / f"{method}_{epochs}")
        words = [
            *learnt,
            "--method",
            METHOD,
            "--seed",
            "1",
            *keys,
            "--weights",
            str(pretrained / "backbone.safetensors"),
        ]
        folder = run("train", words, root / f"after_{method}_{epochs}")
        rows.append(row(f"{method}, {epochs} epochs", folder, pretrained))
    headers = ["the frozen backbone", "last MCR (%)", "average MCR (%)", "collapse", "nearest neighbour right"]
    return f"`python benchmarks/pretraining.py {data} --epochs {epochs}`, seed 1, {machine()}.\n\n" + tabulate(
        rows, headers, tablefmt="github", floatfmt=("", ".1f", ".1f", ".2f", ".3f")
    )


def main() -> int:
    """Pretrain, learn, and keep the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("data", choices=list(KEYS))
    parser.add_argument("--epochs", type=int, default=20, help="of the pretraining; default: 20")
    given = parser.parse_args()
    if given.data != "volumes":
        require_images()

    def work() -> str:
        text = table(given.data, given.epochs)
        write_atomically(RESULTS / f"{given.data}_pretraining.md", text + "\n")
        return text

    return end_or_stop(work)


if __name__ == "__main__":
    sys.exit(main())
