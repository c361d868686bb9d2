"""Choose what a head in closed form reads of a frozen backbone, by leave-one-out on training images alone.

    python benchmarks/levels.py skin8 blood chain histopath

For each set and backbone: the levels as they are published or every block's, standardised or not, with random features
beside them or not. Ridge regression is solved once for all classes; each training image is classified by the solution
without it (Allen, 1974). A row is mean class recall in per cent, and its paired difference to the first row with the
standard error of that difference over images. No test image is read.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bundle"))

import torch
from accuracy import CONFIGS, OVERLAYS, arguments, require_images
from tabulate import tabulate
from torch import Tensor
from torch.nn.functional import one_hot, pad

from scripts.commands.configs import TRAIN, data_files, method_files, parse_config

BACKBONES = {"mobilenet_v2": [], "deit_tiny": [CONFIGS / "deit.json"]}
CANDIDATES = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
RANDOM = 1500
PER_CLASS = 120  # training images that are read


def features(data: str, pages: Sequence[Path]) -> tuple[dict[str, Tensor], Tensor]:
    """Return, of some training images, the published levels and every block's, float64 [N, d], and labels."""
    configs, folders = arguments(data)
    shared = [file for name in configs.split(",") for file in data_files(name)]
    files = [TRAIN, *shared, *method_files("frozen+levels+ridge"), *pages]
    parser = parse_config(files, [*folders, "--network_def#levels", "every", "--device", "cpu"])
    network: Any = parser.get_parsed_content("network")
    kept: dict[int, list[Any]] = defaultdict(list)
    for task in parser.get_parsed_content("tasks"):
        for item in task.train:
            kept[item["label"]].append(item)
    items = [item for own in kept.values() for item in own[:PER_CLASS]]
    found = parser.get_parsed_content("features")(items)[:, -network.backbone.head_width :].double()
    published = parse_config(files, [*folders, "--device", "cpu"]).get_parsed_content("network").backbone.levels
    return {"published": columns(network.backbone, published, found), "every": found}, torch.tensor(
        [item["label"] for item in items]
    )


def columns(backbone: Any, levels: Sequence[str], found: Tensor) -> Tensor:
    """Return the means and deviations of some of the levels that a network reads."""
    channels = [level.shape[1] for level in backbone.features_and_maps(blank(backbone))[1]]
    widths = [2 * channels[index] for index in backbone.read]
    parts = dict(zip(backbone.levels, found.split(widths, 1), strict=True))
    return torch.cat([parts[level] for level in levels], 1)


def blank(backbone: Any) -> Tensor:
    """Return a black image."""
    return torch.zeros(1, 3, backbone.image_size, backbone.image_size)


def prepared(x: Tensor, standardised: bool, with_random: bool) -> Tensor:
    """Return what ridge regression reads, with a 1 at its end."""
    scaled = (x - x.mean(0)) / x.std(0).clamp(min=1e-6)
    if with_random:
        projection = torch.randn(x.shape[1], RANDOM, generator=torch.Generator().manual_seed(0), dtype=torch.double)
        random = (scaled @ projection / x.shape[1] ** 0.5).relu()
        spread = 1.0 if standardised else float(x.std(0).mean())
        return pad(torch.cat([scaled if standardised else x, spread * random / random.std(0)], 1), (0, 1), value=1.0)
    return pad(scaled if standardised else x, (0, 1), value=1.0)


def left_out(x: Tensor, labels: Tensor) -> Tensor:
    """Return which images are classified right by ridge regression without them, [N].

    The shrinkage is the candidate that errs least so. All classes weigh alike.
    """
    roots = (1 / torch.bincount(labels)[labels]).double().sqrt()
    weighted = roots[:, None] * x
    targets = one_hot(labels).double()
    values, vectors = torch.linalg.eigh(weighted @ weighted.T)
    values = values.clamp(min=0)
    unit = values.sum() / x.shape[1]

    def scores(shrinkage: float) -> Tensor:
        shares = values / (values + shrinkage * unit)
        hat = (vectors * shares) @ vectors.T
        errors = (roots[:, None] * targets - hat @ (roots[:, None] * targets)) / (1 - hat.diagonal())[:, None]
        return targets - errors / roots[:, None]

    said = [scores(shrinkage) for shrinkage in CANDIDATES]
    best = min(said, key=lambda one: float((roots[:, None] * (one - targets)).square().sum()))
    return best.argmax(1) == labels


def mean_and_error(right: Tensor, labels: Tensor) -> tuple[float, float]:
    """Return the mean over classes of a number an image, and its standard error."""
    classes = [right[labels == label].double() for label in labels.unique()]
    mean = torch.stack([own.mean() for own in classes]).mean()
    error = torch.stack([own.var() / len(own) for own in classes]).sum().sqrt() / len(classes)
    return float(mean), float(error)


def main() -> None:
    """Print a table a set and backbone."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", choices=OVERLAYS)
    parser.add_argument("--backbones", nargs="+", choices=BACKBONES, default=list(BACKBONES))
    given = parser.parse_args()
    require_images()
    for data, backbone in itertools.product(given.data, given.backbones):
        by_levels, labels = features(data, BACKBONES[backbone])
        rows, first = [], None
        for levels, standardised, with_random in itertools.product(by_levels, (False, True), (False, True)):
            x = prepared(by_levels[levels], standardised, with_random)
            right = left_out(x, labels).double()
            first = right if first is None else first
            mean, _ = mean_and_error(right, labels)
            gain, error = mean_and_error(right - first, labels)
            said = f"{100 * gain:+.1f} ({100 * error:.1f})"
            marks = ["yes" if flag else "" for flag in (standardised, with_random)]
            rows.append(
                [levels, *marks, x.shape[1] - 1, f"{(x.shape[1]) ** 2 * 8 / 2**20:.0f}", f"{100 * mean:.1f}", said]
            )
        headers = ["levels", "standardised", "random", "features", "MiB of sums", "MCR", "gain (error)"]
        print(f"\n{data}, {backbone}, {len(labels)} training images of {len(labels.unique())} classes\n", flush=True)
        print(tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True), flush=True)


if __name__ == "__main__":
    main()
