"""Print the peak resident memory of one pass over all images and so many steps of adapter tuning, in a new process.

python benchmarks/memory.py                                     # 50,000 JPEGs of 224 px, in a temporary folder
python benchmarks/memory.py --npz bloodmnist.npz --steps 20       # as configs/datasets/medmnist.yaml has it
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import resource
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from loading import draw
from monai.data import set_track_meta
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bundle"))

from scripts.commands.configs import TRAIN, data_files, parse_config

DISTINCT = 500  # pictures; each is written many times, which a decoder does not see


class EnoughSteps(Exception):
    """The steps asked for are taken."""


def write_jpegs(folder: Path, count: int) -> None:
    """Write a folder of two classes, every tenth image for testing."""
    pictures = []
    for image in draw(224, DISTINCT):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=90)
        pictures.append(buffer.getvalue())
    for number in range(count):
        part = "test" if number % 10 == 9 else "train"
        path = folder / part / f"class{number // 10 % 2}" / f"{number:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pictures[number % DISTINCT])


def steps(config: str, changes: dict[str, Any], count: int) -> None:
    """Train as the command does: all images are opened, then so many steps taken; print the peak."""
    torch.set_num_threads(1)
    set_track_meta(False)
    parser = parse_config([TRAIN, *data_files(config)], [])
    parser.update({"device": "cpu", "backbone_training": None, **changes})
    trainer = parser.get_parsed_content("train#trainer")
    taken = 0

    def stop() -> None:
        nonlocal taken
        taken += 1
        if taken == count:
            raise EnoughSteps

    trainer.add_event_handler(Events.ITERATION_COMPLETED, stop)
    with suppress(EnoughSteps):
        trainer.run()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    images = sum(len(task.train) + len(task.test) for task in trainer.tasks)
    size, name, batch = (parser.get_parsed_content(key) for key in ("image_size", "backbone", "batch_size"))
    cached = trainer.dataset.cache.used_bytes / 2**30
    print(
        f"{config}: {images} images opened, {taken} steps of {name} at {size} px with {batch} images: "
        f"peak resident memory {peak:.2f} GiB, {cached:.2f} GiB of it cached images",
        flush=True,
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=50000)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--npz", type=Path, help="file in MedMNIST's layout instead of the JPEGs")
    arguments = parser.parse_args()
    own = {name: getattr(arguments, name) for name in ("backbone", "image_size", "batch_size")}
    with tempfile.TemporaryDirectory() as name:
        if arguments.npz:
            folder, file = str(arguments.npz.parent), arguments.npz.name
            config, data = "medmnist", {"dataset_dir": folder, "source#sets": [file], "split": 2}
        else:
            write_jpegs(Path(name) / "data", arguments.images)
            config, data = "image_folder", {"dataset_dir": f"{name}/data"}
        process = multiprocessing.get_context("spawn").Process(
            target=steps, args=(config, {"output_dir": f"{name}/run", **data, **own}, arguments.steps)
        )
        process.start()
        process.join()


if __name__ == "__main__":
    main()
