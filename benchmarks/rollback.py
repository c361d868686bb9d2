"""How long a warm door answers with another version after a rollback, and whether it says bit for bit what it said.

``python benchmarks/rollback.py``: two versions of an untrained ResNet-18 at 224 px, one image, medians of 10 rollbacks
by the command, each followed by the first answer of a door that runs.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bundle"))

from scripts import bundle_root
from scripts.deploy.inference import Served, load_image_classifier
from scripts.deploy.versions import VersionStore
from scripts.imaging.image_spec import ImageSpec
from scripts.model.folder import write_model
from scripts.model.networks import classifier_from

TURNS = 10
SIZE = 224
TESTED = {"images": {}, "recalls": {}, "mean_class_recall": 0.0, "calibration_error": 0.0, "refused": 0}
DESCRIPTION = {
    "backbone": "resnet18",
    "head": "unified",
    "adapter": {"kind": "conv", "width": 1.0},
    "branches": ["merged"],
    "sites": None,
    "levels": "published",
    "tasks": [{"name": "first", "classes": ["a", "b", "c"]}],
    "image": ImageSpec(SIZE, [0.5] * 3, [0.25] * 3).record(),
    "method": "dynammo",
    "data": "none",
}


def make_store(folder: Path) -> VersionStore:
    """Return a store of two versions, the first of which was served before the second."""
    store = VersionStore(folder / "store")
    details = {
        "name": "a",
        "tasks": DESCRIPTION["tasks"],
        "tested": TESTED,
        "accuracy_matrix": [],
        "config": {},
        "licence": "a",
    }
    for seed in (1, 2):
        torch.manual_seed(seed)
        write_model(folder / "model", classifier_from(DESCRIPTION).state_dict(), DESCRIPTION)
        files = {name: (folder / "model" / name).read_bytes() for name in ("model.pt", "network.json")}
        store.add(files, details, None)
        store.promote(seed)
    return store


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        store, image = make_store(folder), folder / "image.png"
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)).save(image)
        first = load_image_classifier(store.version(1).folder).classify(str(image)).probabilities
        served = Served(store.folder / "promoted", load_image_classifier)
        names = ("the command", "the first answer after it", "both", "an answer before it")
        seconds: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(TURNS):
            served.current().classify(str(image))
            asked = time.perf_counter()
            served.current().classify(str(image))
            seconds["an answer before it"].append(time.perf_counter() - asked)
            command = [sys.executable, "-m", "scripts.commands", "versions", str(store.folder), "rollback"]
            started = time.perf_counter()
            subprocess.run(command, cwd=bundle_root(), check=True, capture_output=True)
            done = time.perf_counter()
            found = served.current().classify(str(image)).probabilities
            seconds["the command"].append(done - started)
            seconds["the first answer after it"].append(time.perf_counter() - done)
            assert json.dumps(found) == json.dumps(first), "not what the version said before"
            store.promote(2)
        parts = [seconds[name] for name in names[:2]]
        seconds["both"] = [sum(pair) for pair in zip(*parts, strict=True)]
        rows = [[name, statistics.median(own), max(own)] for name, own in seconds.items()]
        print(tabulate(rows, headers=["rollback", "median (s)", "longest (s)"], floatfmt=".2f", tablefmt="github"))
        print(f"{len(store.audit.events())} events in the log; all {TURNS} answers were equal to the bit.")


if __name__ == "__main__":
    main()
