"""The embedded data set: drawings of stained tissue, written once as PATH16's folder tree.

Eight classes in four sets of two. A class is how nuclei are shaped and arranged; the stain (each set has its own mean,
as real sources do, but images vary more than the means differ), the lighting, the focus and stray cells say nothing
about it. Every image is drawn from its own random numbers, so that it does not depend on how many there are.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from scripts.learning.sources.folders import PATHOLOGY_FOLDER, PathologyFolders
from scripts.learning.sources.lists import BETWEEN_FINDINGS, LabelsCsv
from scripts.learning.sources.source import Group
from scripts.utils.errors import UserError
from scripts.utils.files import write_csv
from scripts.utils.looked_on import looked_on

SIZE = 64
"""Height and width of an image, in pixels."""

SETS: dict[str, tuple[str, str]] = {
    "clusters": ("rings", "nests"),
    "fibres": ("parallel", "tangled"),
    "cells": ("small", "large"),
    "spaces": ("holes", "bands"),
}
"""The classes of each set, in task order."""

MARKER = ".generated.json"
_DRAWING = 2  # to be raised when a change of the drawing makes other images from the same seed

_HAEMATOXYLIN = np.array([0.65, 0.70, 0.29])
_EOSIN = np.array([0.15, 0.90, 0.25])
_STAINS = {"clusters": (1.0, 0.55), "fibres": (0.85, 0.75), "cells": (1.15, 0.5), "spaces": (0.9, 0.6)}
_ROWS, _COLUMNS = np.mgrid[0:SIZE, 0:SIZE].astype(np.float64)

Random = np.random.Generator
Wanted = dict[str, int | float]
"""What was drawn, as it is written down beside the images."""

FINDINGS_FOLDER = "Findings"
FINDINGS = ("rings", "parallel", "large", "holes")
"""The findings that an image may carry several of, in task order."""


@dataclass
class Nuclei:
    """Ellipses: centres in pixels, half axes in pixels, and the angle of the long axis in radians; arrays ``[N]``."""

    x: np.ndarray
    y: np.ndarray
    long: np.ndarray
    short: np.ndarray
    angle: np.ndarray


@dataclass
class Tissue:
    """What one class looks like: its nuclei, and where there is no tissue (``[SIZE, SIZE]`` in 0..1)."""

    nuclei: Nuclei
    empty: np.ndarray


def ensure_generated(
    root: str, seed: int = 0, train_per_class: int = 300, test_per_class: int = 60, val_per_class: int = 0
) -> str:
    """Write the data set to ``<root>/Pathology16`` unless it is there already.

    Args:
        root: folder to hold the tree; made where it is missing.
        seed: of all drawings.
        train_per_class: training images a class.
        test_per_class: test images a class.
        val_per_class: validation images a class; the others do not depend on how many.

    Returns:
        ``root``.

    Raises:
        UserError: where other images than these are in the folder, or it cannot be written.
    """
    wanted: Wanted = {"drawing": _DRAWING, "seed": seed}
    wanted |= {"train_per_class": train_per_class, "test_per_class": test_per_class}
    if val_per_class:
        wanted["val_per_class"] = val_per_class
    tree = os.path.join(root, PATHOLOGY_FOLDER)
    if min(train_per_class, test_per_class) < 1:
        raise UserError("train_per_class and test_per_class must be at least 1")
    _write_once(root, tree, wanted, _write_classes)
    return root


class GeneratedPathology(PathologyFolders):
    """Draws the data set once, and offers each set as a group of two classes.

    Args:
        root: folder to hold the tree; made where it is missing.
        seed: of all drawings.
        train_per_class: training images a class.
        test_per_class: test images a class.
        val_per_class: validation images a class.
        sets: names of the sets in task order.

    Raises:
        UserError: as :func:`ensure_generated`.
    """

    def __init__(
        self,
        root: str,
        seed: int = 0,
        train_per_class: int = 300,
        test_per_class: int = 60,
        val_per_class: int = 0,
        sets: Sequence[str] = tuple(SETS),
    ) -> None:
        ensure_generated(root, seed, train_per_class, test_per_class, val_per_class)
        super().__init__(root, sets)


class GeneratedFindings(LabelsCsv):
    """Draws images with several findings once, and offers them as one group.

    Each finding is in an image with the same chance, whatever else is; an image shows the tissue of all that it has, on
    one stain, and one without any shows stray cells alone.

    Args:
        root: folder to hold the images; made where it is missing.
        seed: of all drawings.
        train: training images.
        test: test images.
        val: validation images.
        share: of the images that have each finding, in (0, 1).

    Raises:
        UserError: as :func:`ensure_generated`.
    """

    def __init__(
        self, root: str, seed: int = 0, train: int = 300, test: int = 100, val: int = 100, share: float = 0.3
    ) -> None:
        super().__init__(os.path.join(root, FINDINGS_FOLDER), labels="many")
        self.wanted: Wanted = {"drawing": _DRAWING, "seed": seed, "train": train, "test": test}
        self.wanted |= {"val": val, "share": share}

    def groups(self) -> list[Group]:
        """Return the one group, drawn where it is not there."""
        _write_once(os.path.dirname(self.root), self.root, self.wanted, _write_findings)
        return super().groups()


def draw_findings(names: Sequence[str], rng: Random) -> np.ndarray:
    """Draw one image with the findings named, keys of the classes; uint8 ``[SIZE, SIZE, 3]``."""
    tissues = [_CLASSES[name](rng) for name in names] or [Tissue(_stray(rng), np.zeros((SIZE, SIZE)))]
    columns = zip(*(vars(tissue.nuclei).values() for tissue in tissues), strict=True)
    nuclei = Nuclei(*(np.concatenate(column) for column in columns))
    return _stain(Tissue(nuclei, np.max([tissue.empty for tissue in tissues], 0)), (1.0, 0.6), rng)


def draw(set_name: str, class_name: str, seed: int, split: int, number: int) -> np.ndarray:
    """Draw one image.

    Args:
        set_name: a key of `SETS`.
        class_name: one of its classes.
        seed: of the data set.
        split: 0 for training, 1 for test, 2 for validation.
        number: of the image in its class.

    Returns:
        uint8 ``[SIZE, SIZE, 3]``.
    """
    names = list(SETS)
    rng = np.random.default_rng([seed, names.index(set_name), SETS[set_name].index(class_name), split, number])
    tissue = _CLASSES[class_name](rng)
    return _stain(tissue, _STAINS[set_name], rng)


def _is_there(tree: str, wanted: Wanted) -> bool:
    if not os.path.isdir(tree):
        return False
    try:
        with open(os.path.join(tree, MARKER), encoding="utf-8") as file:
            found = json.load(file)
    except FileNotFoundError:
        found = "images from elsewhere"
    if found != wanted:
        raise UserError(f"{tree} holds {found}, not {wanted}: give another dataset_dir, or remove that folder")
    return True


def _write_once(root: str, tree: str, wanted: Wanted, write: Callable[[str, Wanted], None]) -> None:
    """Write beside the tree and rename: an interrupted writing leaves nothing half, two processes write one tree.

    Raises:
        UserError: where other images than these are there, or they cannot be written.
    """
    if _is_there(tree, wanted):
        return
    try:
        _write_locked(root, tree, wanted, write)
    except OSError as error:
        raise UserError(f"the generated images cannot be written to {root} ({error}): set dataset_dir") from error


def _write_locked(root: str, tree: str, wanted: Wanted, write: Callable[[str, Wanted], None]) -> None:
    os.makedirs(root, exist_ok=True)
    partial = f"{tree}.partial"
    with open(f"{tree}.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _is_there(tree, wanted):
            return
        shutil.rmtree(partial, ignore_errors=True)
        try:
            write(partial, wanted)
            with open(os.path.join(partial, MARKER), "w", encoding="utf-8") as file:
                json.dump(wanted, file)
            os.replace(partial, tree)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _write_findings(tree: str, wanted: Wanted) -> None:
    counts = [(split, part, int(wanted[part])) for split, part in enumerate(("train", "test", "val"))]
    images = [(split, part, number) for split, part, count in counts for number in range(count)]
    rows = [("path", "label", "split")]
    for split, part, number in looked_on(images, "Drawing", len(images)):
        rng = np.random.default_rng([int(wanted["seed"]), len(SETS), split, number])
        names = [name for name in FINDINGS if rng.random() < wanted["share"]]
        path = f"{part}/{number:04d}.png"
        os.makedirs(os.path.join(tree, part), exist_ok=True)
        Image.fromarray(draw_findings(names, rng)).save(os.path.join(tree, path), compress_level=1)
        rows.append((path, BETWEEN_FINDINGS.join(names), part))
    write_csv(Path(tree, "labels.csv"), rows)


def _write_classes(tree: str, wanted: Wanted) -> None:
    images = [
        (set_name, name, class_name, split, number)
        for split, name in enumerate(("train", "test", "val"))
        for set_name, members in SETS.items()
        for class_name in members
        for number in range(int(wanted.get(f"{name}_per_class", 0)))
    ]
    for set_name, name, class_name, split, number in looked_on(images, "Drawing", len(images)):
        folder = os.path.join(tree, set_name, name, class_name)
        os.makedirs(folder, exist_ok=True)
        image = Image.fromarray(draw(set_name, class_name, int(wanted["seed"]), split, number))
        image.save(os.path.join(folder, f"{number:04d}.png"), compress_level=1)


def _rings(rng: Random) -> Tissue:
    """Glands: round nuclei in circles around a pale lumen."""
    x, y, radius = _centres(rng)
    each = [max(6, int(r * rng.uniform(1.1, 1.6))) for r in radius]
    turn = np.concatenate([np.arange(n) * 2 * np.pi / n + rng.uniform(0, 6.3) for n in each])
    owner = np.repeat(np.arange(len(each)), each)
    turn = turn + rng.normal(0, 0.15, len(turn))
    distance = radius[owner] * rng.normal(1, 0.14, len(turn))
    nuclei = _round(rng, x[owner] + distance * np.cos(turn), y[owner] + distance * np.sin(turn))
    return Tissue(nuclei, _discs(x, y, radius * rng.uniform(0.2, 0.65), softness=1.5))


def _nests(rng: Random) -> Tissue:
    """Solid clusters: round nuclei all over a disc, with a pale cleft beside it now and then."""
    x, y, radius = _centres(rng)
    each = [max(6, int(r * rng.uniform(1.3, 2.0))) for r in radius]
    owner = np.repeat(np.arange(len(each)), each)
    turn = rng.uniform(0, 2 * np.pi, len(owner))
    distance = radius[owner] * np.sqrt(rng.uniform(0, 1.2, len(owner)))
    nuclei = _round(rng, x[owner] + distance * np.cos(turn), y[owner] + distance * np.sin(turn))
    clefts = _discs(x + radius, y + radius, radius * rng.uniform(0.1, 0.5), softness=1.5)
    return Tissue(nuclei, clefts)


def _parallel(rng: Random) -> Tissue:
    """Bundles: long thin nuclei everywhere that lie the same way, more or less."""
    x, y = rng.uniform(0, SIZE, (2, int(rng.integers(28, 55))))
    return _fibres(rng, x, y, spread=rng.uniform(0.1, 0.3), width=rng.uniform(0.9, 1.4), stretch=rng.uniform(2.8, 4.5))


def _tangled(rng: Random) -> Tissue:
    """Knots: shorter, plumper nuclei that lie every way, crowded in some places."""
    x, y, radius = _centres(rng)
    owner = np.repeat(np.arange(len(x)), 20)
    turn = rng.uniform(0, 2 * np.pi, len(owner))
    distance = radius[owner] * np.sqrt(rng.uniform(0, 0.8, len(owner)))
    x, y = x[owner] + distance * np.cos(turn), y[owner] + distance * np.sin(turn)
    return _fibres(rng, x, y, spread=rng.uniform(1.2, 2.0), width=rng.uniform(1.4, 2.0), stretch=rng.uniform(1.7, 2.6))


def _fibres(rng: Random, x: np.ndarray, y: np.ndarray, spread: float, width: float, stretch: float) -> Tissue:
    short = width * rng.uniform(0.8, 1.2, len(x))
    angle = rng.uniform(0, np.pi) + rng.normal(0, spread, len(x))
    return Tissue(Nuclei(x, y, short * stretch * rng.uniform(0.8, 1.2, len(x)), short, angle), np.zeros((SIZE, SIZE)))


def _small(rng: Random) -> Tissue:
    """Many small round nuclei, about the same."""
    count = int(rng.integers(60, 110))
    return _loose(rng, count, rng.uniform(1.5, 2.1) * rng.normal(1, 0.12, count))


def _large(rng: Random) -> Tissue:
    """Fewer nuclei of very different sizes."""
    count = int(rng.integers(28, 60))
    return _loose(rng, count, rng.uniform(2.0, 2.8) * np.exp(rng.normal(0, 0.35, count)))


def _loose(rng: Random, count: int, radius: np.ndarray) -> Tissue:
    x, y = rng.uniform(0, SIZE, (2, count))
    long = radius * rng.uniform(1.0, 1.35, count)
    return Tissue(Nuclei(x, y, long, radius, rng.uniform(0, np.pi, count)), np.zeros((SIZE, SIZE)))


def _holes(rng: Random) -> Tissue:
    """Air or fat: large pale holes with nuclei in the walls between them."""
    count = int(rng.integers(5, 11))
    x, y = rng.uniform(0, SIZE, (2, count))
    empty = _discs(x, y, rng.uniform(6, 13, count), softness=1.0)
    x, y = rng.uniform(0, SIZE, (2, 90))
    wall = empty[y.astype(int), x.astype(int)] < 0.5
    return Tissue(_round(rng, x[wall][:45], y[wall][:45]), empty)


def _bands(rng: Random) -> Tissue:
    """Layers: nuclei in stripes with pale clefts between them."""
    angle, period, phase = rng.uniform(0, np.pi), rng.uniform(12, 22), rng.uniform(0, 6.3)
    along = np.cos(angle) * _COLUMNS + np.sin(angle) * _ROWS + 3 * _clouds(rng, 4.0)
    wave = np.cos(2 * np.pi * along / period + phase)
    x, y = rng.uniform(0, SIZE, (2, 130))
    kept = wave[y.astype(int), x.astype(int)] > rng.uniform(-0.5, 0.3)
    empty = np.clip((-wave - rng.uniform(0.3, 0.8)) * 6, 0, 1)
    return Tissue(_round(rng, x[kept][:50], y[kept][:50]), empty)


_CLASSES: dict[str, Callable[[Random], Tissue]] = {
    "rings": _rings,
    "nests": _nests,
    "parallel": _parallel,
    "tangled": _tangled,
    "small": _small,
    "large": _large,
    "holes": _holes,
    "bands": _bands,
}


def _centres(rng: Random) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return x, y and radius of two to four clusters, one in each of as many quarters of the image."""
    count = int(rng.integers(2, 5))
    quarter = rng.permutation(4)[:count]
    x = 16 + 32 * (quarter % 2) + rng.normal(0, 4, count)
    y = 16 + 32 * (quarter // 2) + rng.normal(0, 4, count)
    return x, y, rng.uniform(8, 14, count)


def _round(rng: Random, x: np.ndarray, y: np.ndarray) -> Nuclei:
    short = rng.uniform(1.5, 2.2) * rng.normal(1, 0.15, len(x))
    return Nuclei(x, y, short * rng.uniform(1.0, 1.5, len(x)), short, rng.uniform(0, np.pi, len(x)))


def _stray(rng: Random) -> Nuclei:
    """Cells of every shape that are found in any tissue."""
    count = int(rng.integers(3, 13))
    x, y = rng.uniform(0, SIZE, (2, count))
    short = rng.uniform(1.0, 2.6, count)
    return Nuclei(x, y, short * rng.uniform(1.0, 3.0, count), short, rng.uniform(0, np.pi, count))


def _clouds(rng: Random, roughness: float) -> np.ndarray:
    """Return noise ``[SIZE, SIZE]`` of mean 0 and deviation 1; the larger ``roughness``, the smoother."""
    frequency = np.hypot(np.fft.fftfreq(SIZE)[:, None], np.fft.rfftfreq(SIZE)[None, :])
    frequency[0, 0] = 1.0
    spectrum = np.fft.rfft2(rng.normal(size=(SIZE, SIZE))) / frequency ** (roughness / 2)
    spectrum[0, 0] = 0.0
    noise = np.fft.irfft2(spectrum, s=(SIZE, SIZE))
    result: np.ndarray = noise / noise.std()
    return result


def _discs(x: np.ndarray, y: np.ndarray, radius: np.ndarray, softness: float) -> np.ndarray:
    distance = np.hypot(_COLUMNS - x[:, None, None], _ROWS - y[:, None, None])
    result: np.ndarray = np.clip((radius[:, None, None] - distance) / softness + 0.5, 0, 1).max(axis=0)
    return result


def _ellipses(nuclei: Nuclei, depth: np.ndarray) -> np.ndarray:
    """Return how much stain the nuclei take up, ``[SIZE, SIZE]``; ``depth`` ``[N]`` is each one's own."""
    across, down = _COLUMNS - nuclei.x[:, None, None], _ROWS - nuclei.y[:, None, None]
    cos, sin = np.cos(nuclei.angle)[:, None, None], np.sin(nuclei.angle)[:, None, None]
    long, short = nuclei.long[:, None, None], nuclei.short[:, None, None]
    distance = np.hypot((across * cos + down * sin) / long, (down * cos - across * sin) / short)
    result: np.ndarray = (np.clip((1 - distance) * short + 0.5, 0, 1) * depth[:, None, None]).max(axis=0)
    return result


def _stain(tissue: Tissue, stain: tuple[float, float], rng: Random) -> np.ndarray:
    """Colour the tissue by the law of Beer and Lambert, with an image's own stain, light, focus and noise."""
    haematoxylin, eosin = np.array(stain) * np.exp(rng.normal(0, 0.22, 2))
    stray = _stray(rng)
    cells = _ellipses(tissue.nuclei, rng.uniform(0.6, 1.1, len(tissue.nuclei.x)))
    cells = np.maximum(cells, _ellipses(stray, rng.uniform(0.4, 1.0, len(stray.x))))
    chromatin = np.clip(1 + 0.2 * _clouds(rng, 1.0), 0, 2)
    stroma = np.clip(0.55 + 0.2 * _clouds(rng, 2.5), 0.05, 1.5) * (1 - 0.85 * tissue.empty)
    purple = (haematoxylin * (cells * chromatin + 0.12 * stroma))[..., None] * _turned(_HAEMATOXYLIN, rng)
    pink = (eosin * stroma * (1 - 0.5 * cells))[..., None] * _turned(_EOSIN, rng)
    light = np.exp(-purple - pink) * rng.uniform(0.88, 1.0)
    light = _blurred(light, rng.uniform(0, 0.4)) + rng.normal(0, rng.uniform(0.01, 0.04), light.shape)
    return (np.clip(light, 0, 1) * 255).astype(np.uint8)


def _turned(colour: np.ndarray, rng: Random) -> np.ndarray:
    result: np.ndarray = np.clip(colour + rng.normal(0, 0.06, 3), 0.02, None)
    return result


def _blurred(light: np.ndarray, amount: float) -> np.ndarray:
    """Mix each pixel with its four neighbours: 0 leaves the image, 1 is their mean."""
    padded = np.pad(light, ((1, 1), (1, 1), (0, 0)), mode="edge")
    around = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
    result: np.ndarray = (1 - amount) * light + amount * around / 4
    return result
