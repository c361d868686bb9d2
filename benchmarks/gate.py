"""How many test images of a class the gate needs: ``python benchmarks/gate.py`` prints the table of the docs.

A class of which nothing is lost, but a share of the images is told by one version alone, as many by either: the fewest
images with which nine of ten such versions pass (300 draws of a seed: exact in the first row, about right in others).
"""

from __future__ import annotations

import sys
from bisect import bisect_left
from functools import cache
from pathlib import Path

import numpy as np
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bundle"))

from scripts.deploy.versions.gate import LEVEL, TINY, OldClass

CLASSES, MARGINS, SHARES = 8, (0.05, 0.1, 0.15), (0.0, 0.01, 0.02, 0.05, 0.1)
DRAWS, POWER, MOST = 300, 0.9, 4096


@cache
def passes(images: int, lost: int, gained: int, margin: float) -> bool:
    """Say whether the gate lets a class pass."""
    return OldClass(images, lost, gained).bound(LEVEL / CLASSES) <= margin + TINY


def power(images: int, share: float, margin: float) -> float:
    """Return how often a class passes that has lost nothing, 0..1."""
    counts = np.random.default_rng(0).multinomial(images, [share, share, 1 - 2 * share], DRAWS)
    return float(np.mean([passes(images, int(lost), int(gained), margin) for lost, gained, _ in counts]))


def needed(share: float, margin: float) -> int:
    """Return the fewest images that are enough; of more, more is shown."""
    return bisect_left(range(MOST), POWER, key=lambda images: power(max(images, 1), share, margin))


def main() -> None:
    """Compute and print."""
    rows = [[f"{100 * share:.0f} %", *(needed(share, margin) for margin in MARGINS)] for share in SHARES]
    headers = ["told by one version alone, each", *(f"margin {100 * margin:.0f} points" for margin in MARGINS)]
    print(tabulate(rows, headers=headers, tablefmt="github"))


if __name__ == "__main__":
    main()
