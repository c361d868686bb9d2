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
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bundle"))

from scripts import bundle_root
from scripts.engines import ContinualTrainer

EPOCHS = 100


def trainer(folder: Path, **changes: Any) -> ContinualTrainer:
    """Return the main job's trainer with a single task of generated images, without its handlers."""
    parser = ConfigParser(ConfigParser.load_config_file(f"{bundle_root()}/configs/train.json"))
    own = {"dataset_dir": str(folder / "data"), "output_dir": str(folder / "run"), "device": "cpu"}
    parser.update({**own, "source#sets": ["clusters"], "train#handlers": [], **changes})
    return parser.get_parsed_content("train#trainer")


def finetune(folder: Path, name: str, size: int, images: int, cached: bool) -> tuple[float, int, list[float]]:
    """Fine-tune the head and return the seconds, the images that passed the backbone, and the loss of each step."""
    engine = trainer(
        folder,
        backbone=name,
        image_size=size,
        finetune_epochs=EPOCHS,
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


if __name__ == "__main__":
    main()
