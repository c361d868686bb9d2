"""The sums of all sites together, and the head that is solved from them: that of one hospital with all images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scripts.federation.contribution import ERRORS, MASKED, NOISY, Contribution
from scripts.federation.fixed_point import Integers, from_fixed, symmetric
from scripts.federation.masks import check_complete
from scripts.federation.matching import Names
from scripts.federation.noise import nearest_positive
from scripts.model.networks.heads import Head
from scripts.model.networks.merging import Merging, merge
from scripts.utils.errors import UserError


@dataclass(frozen=True)
class Samples:
    """What a row that weighs by images reads."""

    tasks: Sequence[Mapping[str, Mapping[str, Tensor]]]


@dataclass(frozen=True)
class Pool:
    """Contributions whose sums are of the same features.

    A class at a time is in memory, whatever the number of sites and classes. The sums are integers, so that they are
    the same to the bit in whatever order the sites came.

    Attributes:
        contributions: one a site; masked ones of whole rounds.
        names: of their classes in the federation.
    """

    contributions: Sequence[Contribution]
    names: Names

    def check(self) -> None:
        """Refuse what does not add.

        Raises:
            UserError: names what differs, or the site that is missing.
        """
        first = self.contributions[0]
        for other in self.contributions[1:]:
            refuse_other(first, other, "features")
            if other.width() != first.width():
                raise UserError(f"{other.path} has sums of another width than {first.path}: let the site send it again")
        for rounds in {one.header["round"]["digest"]: one.header["round"] for one in self._of(MASKED)}.values():
            given = [one for one in self._of(MASKED) if one.header["round"]["digest"] == rounds["digest"]]
            check_complete(rounds, [one.site for one in given])
            for what in ("classes", "candidates"):
                if any(one.header[what] != given[0].header[what] for one in given):
                    raise UserError(
                        f"the sites of round {rounds['name']} have masked other {what}: agree on a new round, with one "
                        "config at all sites"
                    )

    def classes(self) -> list[str]:
        """Return the federation's classes, in the order in which they came."""
        return list(
            dict.fromkeys(self.names[one.site, own["name"]] for one in self.contributions for own in one.classes)
        )

    def second(self, name: str) -> Tensor:
        """Return the unweighted sum of x'x over all images of a class, [D, D]."""
        total: Integers | None = None
        for one in self.contributions:
            for number, own in enumerate(one.classes):
                if self.names[one.site, own["name"]] == name:
                    part = one.numbers(f"class.{number}")
                    total = part if total is None else total + part  # masks pass 2^63 and come back
        if total is None:
            raise UserError(f"no site has class {name}: leave it out")
        return symmetric(from_fixed(total))

    def shrinkage(self) -> float:
        """Return the shrinkage that has erred least over all sites, on images of each left out.

        Raises:
            UserError: where no site says what erred how much.
        """
        totals: dict[float, int] = {}
        for one in self.contributions:
            for candidate, error in zip(one.header["candidates"], self._errors(one), strict=True):
                totals[candidate] = (totals.get(candidate, 0) + int(error) + 2**63) % 2**64 - 2**63
        said = [set(one.header["candidates"]) for one in self.contributions if one.header["candidates"]]
        shared = set.intersection(*said) if said else set()
        if not shared:
            raise UserError("no shrinkage was tried at all sites: give one (--shrinkage 0.1)")
        return min(sorted(shared), key=totals.__getitem__)

    def solve(self, head: Head, shrinkage: float, names: Sequence[str]) -> dict[str, int]:
        """Solve a head, every class alike, whatever its number of images.

        Args:
            head: over these classes.
            shrinkage: of the answer.
            names: of its classes, in the order of its outputs.

        Returns:
            How many images each class has, as the sums have it; with noise in them, about.

        Raises:
            UserError: when a class has no image left, or the sums are singular.
        """
        noisy, width = bool(self._of(NOISY)), self.contributions[0].width()
        images, views_each = dict[str, int](), len(self.contributions[0].identity.views)
        apart = len(names) if head.has_covariances else 1
        second, first = torch.zeros(apart, width, width, dtype=torch.double), []
        for number, name in enumerate(names):
            own = self.second(name)
            views = float(own[-1, -1])
            if views < 0.5:
                raise UserError(f"no image of class {name} is in the sums: leave the class out of the round")
            images[name] = round(views / views_each)
            second[number if head.has_covariances else 0] += own / max(views, 1.0)
            first.append(own[-1] / max(views, 1.0))
        if noisy:
            second = torch.stack([nearest_positive(matrix) for matrix in second])
        with torch.no_grad():
            head.solve(second, torch.stack(first), shrinkage)
        return images

    def _of(self, kind: str) -> list[Contribution]:
        return [one for one in self.contributions if one.kind == kind]

    def _errors(self, one: Contribution) -> Integers:
        return one.numbers(ERRORS) if one.header["candidates"] else np.zeros(0, np.int64)


def averaged_adapters(contributions: Sequence[Contribution], merging: Merging) -> dict[str, Tensor]:
    """Return the sites' adapters merged into one set, as tasks' are.

    Args:
        contributions: of sites that started from one backbone; their order does not matter to the row.
        merging: by which row.

    Raises:
        UserError: when their backbones differ, a site has no adapters, or the row reads what is not contributed.
    """
    ordered = sorted(contributions, key=lambda one: one.site)
    for other in ordered[1:]:
        refuse_other(ordered[0], other, "base")
    states = [one.adapters() for one in ordered]
    if not all(states):
        bare = next(one.site for one, state in zip(ordered, states, strict=True) if not state)
        raise UserError(f"site {bare} has tuned no adapters, and others have: learn by one method at all sites")
    if merging.row.statistic not in (None, "samples") or merging.needs() not in ([], ["samples"]):
        raise UserError(f"way of merging '{type(merging.row).__name__}' reads what no site contributes: choose another")
    counts = [sum(own["images"] or 0 for own in one.classes) for one in ordered]
    if merging.needs() and not all(counts):
        raise UserError("hidden sums say no number of images to weigh adapters by: choose another way (--row average)")
    weights = [{"samples": {key: torch.tensor(float(count)) for key in states[0]}} for count in counts]
    return merge(states, Merging(merging.row, merging.base, merging.batchnorm, Samples(weights)))


def refuse_other(first: Contribution, other: Contribution, hashed: str) -> None:
    """Refuse two contributions that are not of one kind of features.

    Args:
        first: one of them.
        other: another.
        hashed: ``features`` must be the same, or the ``base`` alone.

    Raises:
        UserError: says what differs.
    """
    mine, others = first.identity, other.identity
    for what, a, b in (
        ("networks", mine.network, others.network),
        ("ways to see an image", mine.image, others.image),
        ("views of an image", mine.views, others.views),
        ("backbones' weights", mine.base, others.base),
        ("features (adapters)", getattr(mine, hashed), getattr(others, hashed)),
    ):
        if a != b:
            raise UserError(
                f"sites {first.site} and {other.site} have different {what} ({_shown(a)} and {_shown(b)}): their sums "
                "do not add. Learn with one config and one file of weights at all sites"
            )


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
