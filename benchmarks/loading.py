"""Print images a second that reach the training loop, beside torchvision's ImageFolder, and the memory that takes.

Both sides load the same PNG folder in the same process, in turns, in a loader without workers, on one thread: what
one processor core gives. Every median stands with its ratio to torchvision's.

make bench                                                    # 224 px stored and loaded, 256 loaded at 128, 64 at 64
python benchmarks/loading.py --sizes 512:224 --images 500
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.data import DataLoader, set_track_meta
from PIL import Image
from tabulate import tabulate
from torchvision import transforms
from torchvision.datasets import ImageFolder

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bundle"))

from scripts import bundle_root
from scripts.imaging.transforms import npz
from scripts.learning.sources import Item
from scripts.learning.tasks import ImageDataset

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # torchvision's for ImageNet
BATCH = 32
CLASSES = 2


def draw(size: int, count: int) -> np.ndarray:
    """Return images of soft blobs and a little noise, uint8 ``[count, size, size, 3]``; as PNG about 1.6 to 1."""
    rng = np.random.default_rng(0)
    images = np.empty((count, size, size, 3), np.uint8)
    for image in images:
        blobs = Image.fromarray(rng.integers(0, 256, (size // 8, size // 8, 3), dtype=np.uint8))
        noise = rng.integers(-4, 5, image.shape)
        image[:] = (np.asarray(blobs.resize((size, size), Image.Resampling.BICUBIC)) + noise).clip(0, 255)
    return images


def write(folder: Path, images: np.ndarray) -> tuple[list[Item], list[Item]]:
    """Write the images as a PNG folder and as an npz file, and return the items of both."""
    pictures: list[Item] = []
    for number, image in enumerate(images):
        path = folder / "png" / f"class{number % CLASSES}" / f"{number:05}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
        pictures.append({"image": str(path), "label": number % CLASSES})
    np.savez_compressed(folder / "set.npz", train_images=images)
    entries = [{**item, "image": f"{folder}/set.npz#train/{number}"} for number, item in enumerate(pictures)]
    return pictures, entries


def our_dataset(items: list[Item], size: int, cache_bytes: int) -> ImageDataset:
    """Return the training data set of ``configs/train.json`` with these items."""
    parser = ConfigParser(ConfigParser.load_config_file(f"{bundle_root()}/configs/train.json"))
    changes = {
        "image_size": size,
        "image#mean": MEAN,
        "image#std": STD,
        "limits#cache_bytes": cache_bytes,
        "train#dataset#data": [],
    }
    parser.update(changes)
    dataset: ImageDataset = parser.get_parsed_content("train#dataset")
    dataset.set_data(items)
    return dataset


def torchvision_dataset(folder: Path, size: int) -> ImageFolder:
    """Return what most PyTorch users write."""
    steps = [transforms.Resize((size, size)), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    return ImageFolder(folder, transforms.Compose([*steps, transforms.RandomHorizontalFlip()]))


def seconds(loader: Iterable[Any]) -> float:
    """Return how long an epoch takes."""
    started = time.perf_counter()
    for _ in loader:
        pass
    return time.perf_counter() - started


def rates(loaders: dict[str, Iterable[Any]], images: int, rounds: int) -> dict[str, float]:
    """Return the median images a second of each loader, measured in turns."""
    found: dict[str, list[float]] = {name: [] for name in loaders}
    for turn in range(rounds + 1):
        for name, loader in loaders.items():
            rate = images / seconds(loader)
            if turn:  # the first turn warms up and fills the cache
                found[name].append(rate)
    return {name: statistics.median(values) for name, values in found.items()}


def compare(stored: int, loaded: int, images: int, rounds: int) -> list[list[str]]:
    """Measure one size and return the table's rows."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pictures, entries = write(folder, draw(stored, images))
        settings: dict[str, Any] = {"batch_size": BATCH, "shuffle": True}
        loaders: dict[str, Iterable[Any]] = {
            "torchvision ImageFolder": torch.utils.data.DataLoader(
                torchvision_dataset(folder / "png", loaded), **settings
            ),
            "PNG folder": DataLoader(our_dataset(pictures, loaded, 0), **settings),
            "npz": DataLoader(our_dataset(entries, loaded, 0), **settings),
            "PNG folder, cached": DataLoader(our_dataset(pictures, loaded, 2**34), **settings),
        }
        found = rates(loaders, images, rounds)
    reference = found["torchvision ImageFolder"]
    sizes = f"{stored} -> {loaded} px"
    return [[sizes, source, f"{rate:.0f}", f"{rate / reference:.2f}"] for source, rate in found.items()]


def anonymous_bytes() -> int:
    """Return the memory of this process that no file stands behind; pages of mapped files come and go with need."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


def memory(megabytes: int, bound: int) -> str:
    """Load a compressed npz much larger than what may be held and cached, and say what memory that took."""
    images = draw(224, 32)
    repeats = megabytes * 10**6 // images.nbytes + 1
    npz.HELD_BYTES = bound
    with tempfile.TemporaryDirectory() as name:
        path = f"{name}/set.npz"
        np.savez_compressed(path, train_images=np.tile(images, (repeats, 1, 1, 1)))
        items = [{"image": f"{path}#train/{index}", "label": 0} for index in range(len(images) * repeats)]
        loader = DataLoader(our_dataset(items, 224, bound), batch_size=BATCH, shuffle=True)
        before = peak = anonymous_bytes()
        for _ in range(2):
            for _ in loader:
                peak = max(peak, anonymous_bytes())
    return (
        f"{repeats * images.nbytes / 1e6:.0f} MB of images, {bound / 1e6:.0f} MB to cache and as much to hold: "
        f"loading took {(peak - before) / 1e6:.0f} MB"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=["224:224", "256:128", "64:64"], help="stored:loaded px")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--megabytes", type=int, default=500, help="size of the set of 10 times what is cached")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    set_track_meta(False)  # as in train.json
    used = memory(arguments.megabytes, arguments.megabytes * 10**5)  # first, while nothing else left gaps in memory
    rows = []
    for size in arguments.sizes:
        stored, loaded = map(int, size.split(":"))
        rows += compare(stored, loaded, arguments.images, arguments.rounds)
    print(f"\nLoading, batches of {BATCH}, one thread; {platform.processor() or platform.machine()}")
    print(tabulate(rows, ["stored -> loaded", "source", "images/s", "ratio"], tablefmt="github", disable_numparse=True))
    print(used)


if __name__ == "__main__":
    main()
