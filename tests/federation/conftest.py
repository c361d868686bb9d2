"""Shared by the tests of federation: sites with keys, and what each has learnt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from scripts.federation.contribution import (
    ClassSums,
    Contribution,
    Identity,
    read_contribution,
    write_contribution,
)
from scripts.federation.pool import Pool
from scripts.federation.site import Site
from scripts.model.networks.closed_form import ridge
from scripts.model.networks.heads import UnifiedHead

WIDTH = 9
SHRINKAGE = 0.1
IDENTITY = Identity(
    network={
        **{"backbone": "resnet18", "head": "unified", "adapter": None},
        **{"sites": [], "levels": "every", "image_size": 64, "seed": 1},
    },
    image={"size": 64, "mean": [0.5], "std": [0.5]},
    views=[[]],
    base="a" * 64,
    features="b" * 64,
)
Images = Mapping[str, Mapping[str, Tensor]]
"""The feature vectors of each class at each site."""


def vectors(count: int, seed: int, width: int = WIDTH) -> Tensor:
    """Return so many feature vectors that end with a 1, [N, width + 1]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.cat([torch.randn(count, width, generator=generator, dtype=torch.double), torch.ones(count, 1)], 1)


def sums_of(classes: Mapping[str, Tensor], codes: Mapping[str, Sequence[str]] | None = None) -> list[ClassSums]:
    """Return the sums of each class over its vectors."""
    return [ClassSums(name, len(x), x.T @ x, (codes or {}).get(name)) for name, x in classes.items()]


def give(
    folder: Path, name: str, classes: Mapping[str, Tensor], errors: Mapping[float, float] | None = None, **more: Any
) -> Contribution:
    """Write what a site contributes, and read it again."""
    card = folder / f"{name}.site.json"
    site = Site.open(card) if card.is_file() else Site.make(name, folder)
    file = folder / f"{name}.safetensors"
    codes = more.pop("codes", None)
    identity = replace(IDENTITY, **more.pop("identity", {}))
    write_contribution(file, site, identity, sums_of(classes, codes), "frozen", errors, **{"tolerance": 0, **more})
    return read_contribution(file, site.card)


def same_names(contributions: Sequence[Contribution]) -> dict[tuple[str, str], str]:
    """Call every class as its site does."""
    return {(one.site, own["name"]): own["name"] for one in contributions for own in one.classes}


def solved(contributions: Sequence[Contribution], names: Any = None, shrinkage: float = SHRINKAGE) -> dict[str, Tensor]:
    """Return the row [bias, weights] of each class of the head solved from contributions, float64."""
    pool = Pool(contributions, names or same_names(contributions))
    pool.check()
    head = UnifiedHead(pool.contributions[0].width() - 1, [len(pool.classes())]).double()
    pool.solve(head, shrinkage, pool.classes())
    rows = torch.cat([head.linear.weight.detach(), head.linear.bias.detach()[:, None]], 1)
    return dict(zip(pool.classes(), rows, strict=True))


def pooled(sites: Images, shrinkage: float = SHRINKAGE) -> dict[str, Tensor]:
    """Return the same of one hospital that has all images, in the plainest way."""
    names = list(dict.fromkeys(name for classes in sites.values() for name in classes))
    together = {name: torch.cat([own[name] for own in sites.values() if name in own]) for name in names}
    second = sum((x.T @ x / len(x) for x in together.values()), torch.zeros(1, dtype=torch.double))
    first = torch.stack([x.mean(0) for x in together.values()])
    return dict(zip(names, ridge(second, first, shrinkage), strict=True))


def differences(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    """Return the largest difference between two heads of the same classes."""
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)


@pytest.fixture(scope="session")
def fed() -> SimpleNamespace:
    """The makers above, for test modules, which cannot import this file."""
    return SimpleNamespace(
        width=WIDTH,
        identity=IDENTITY,
        vectors=vectors,
        sums_of=sums_of,
        give=give,
        same_names=same_names,
        solved=solved,
        pooled=pooled,
        differences=differences,
    )
