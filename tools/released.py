"""Write what this release leaves on disk, for later ones to be tested with: ``python tools/released.py``.

A run of two tasks, a store of its versions, and a node's queue, small, as a backup in ``tests/bundle/releases``. Once a
release; ``tests/bundle/test_releases.py`` opens all of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from torch import Tensor
from torchvision.models import mobilenet_v2

ROOT = Path(__file__).resolve().parents[1]
BUNDLE = ROOT / "bundle"
sys.path.insert(0, str(BUNDLE))

from scripts import bundle_version, child_environment  # noqa: E402
from scripts.commands.backup import backup  # noqa: E402
from scripts.commands.versions import main as versions  # noqa: E402
from scripts.deploy.queue import ImageQueue, State  # noqa: E402

SMALL = {
    "source#sets": ["clusters", "fibres"],
    "source#train_per_class": 6,
    "source#test_per_class": 3,
    "source#val_per_class": 2,
    "backbone": "mobilenet_v2",
    "network_def#sites": ["features.3"],
    "backbone_epochs": 1,
    "adapter_epochs": 1,
    "finetune_epochs": 1,
    "image_size": 40,
    "batch_size": 8,
    "memory_size": 8,
    "memory#exemplars": "copies",
    "device": "cpu",
}
ANY = ("--class_margin", "1", "--mean_margin", "1", "--class_floor", "0", "--mean_floor", "0")
PERIOD = 251
WAITING = b"an image that waits"


def repetitive(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return weights that repeat themselves, so that a zip of them is small: they stay as they are, in every file."""
    torch.manual_seed(0)
    pattern = torch.randn(PERIOD)
    return {
        name: pattern.repeat(value.numel() // PERIOD + 1)[: value.numel()].view_as(value) * value[0].numel() ** -0.5
        if value.dim() > 1
        else value
        for name, value in state.items()
    }


def train(folder: Path) -> Path:
    """Train the run, and return its folder."""
    weights = folder / "repetitive.pth"
    torch.save(repetitive(mobilenet_v2().state_dict()), weights)
    keys = {**SMALL, "weights": weights, "dataset_dir": folder / "images", "output_dir": folder / "run"}
    typed = [word for key, value in keys.items() for word in (f"--{key}", str(value))]
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(BUNDLE / "configs/train.json"), *typed]
    subprocess.run(command, cwd=folder, env=child_environment(OMP_NUM_THREADS="1"), check=True)
    for path in folder.glob("run/**/*"):
        if path.suffix == ".png" and "exemplars" not in path.parts or path.name.startswith("events.out"):
            path.unlink()
    return folder / "run"


def fill(folder: Path) -> Path:
    """Fill a queue with an image in each state but failed, and return its folder."""
    queue = ImageQueue(str(folder / "node"), lambda: "model")
    steps = [
        lambda entry: queue.sent(queue.classified(entry, [b"sent"])),
        lambda entry: queue.classified(entry, [b"a report"]),
        lambda entry: queue.refused(entry, "corrupt_pixels"),
        lambda entry: None,
    ]
    for number, step in enumerate(steps):
        file = queue.new_file()
        file.write_bytes(WAITING)
        queue.add(f"1.{number}", file)
        step(queue.next([State.RECEIVED]))
    queue.close()
    return folder / "node"


def main() -> None:
    """Write the backup as a zip file."""
    target = ROOT / "tests/bundle/releases" / f"{bundle_version()}.zip"
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        run, store = train(folder), folder / "store"
        for words in (["add", str(run)], ["promote", "1", *ANY], ["promote", "2", *ANY]):
            if versions([str(store), "--by", "release", *words]):
                raise SystemExit(1)
        print(backup([run, store, fill(folder)], folder / "backup", with_keys=False))
        target.parent.mkdir(exist_ok=True)
        with zipfile.ZipFile(target, "w", zipfile.ZIP_LZMA) as file:
            for path in sorted((folder / "backup").rglob("*")):
                if path.is_file() and not path.is_symlink():
                    file.write(path, path.relative_to(folder / "backup"))
        manifest = json.loads((folder / "backup/backup.json").read_text())
    print(f"{target} holds {len(manifest['files'])} files, {os.path.getsize(target):,} bytes")


if __name__ == "__main__":
    main()
