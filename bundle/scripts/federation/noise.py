"""Noise on sums, so that no image can be told from them: (epsilon, delta)-differential privacy."""

from __future__ import annotations

import secrets
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from scripts.utils.errors import UserError
from scripts.utils.extras import of_extra

COUNTED = 0.5
"""What the 1 at a vector's end counts beside features of length 1: it shares the noise out between counts and sums."""


@dataclass(frozen=True)
class Noise:
    """The Gaussian mechanism on the sums of a class; an image is of one class, so that all classes cost as one.

    Attributes:
        epsilon: above 0.
        delta: in (0, 1); under 1 over the number of images.
        clip: the longest feature vector; longer ones are made as long.

    Raises:
        UserError: for a number out of range.
    """

    epsilon: float
    delta: float
    clip: float

    def __post_init__(self) -> None:
        """Check the values."""
        for name, value, least in (("epsilon", self.epsilon, 0), ("clip", self.clip, 0), ("delta", self.delta, 0)):
            if not least < value < float("inf"):
                raise UserError(f"{name} is {value}: give a number above 0 (--{name})")
        if self.delta >= 1:
            raise UserError(f"delta is {self.delta}: give less than 1 over the number of images (--delta)")

    def clipped(self, vectors: Tensor) -> Tensor:
        """Return vectors x [N, D], which end with a 1, none longer than ``clip`` without it."""
        lengths = vectors[:, :-1].norm(dim=1, keepdim=True)
        scales = (self.clip / lengths.clamp(min=1e-12)).clamp(max=1)
        return torch.cat([vectors[:, :-1] * scales, vectors[:, -1:]], 1)

    def deviations(self, width: int, views: int) -> Tensor:
        """Return the standard deviation of what is added to each number of the upper half of a sum of x'x, [D, D].

        Features are measured by the clip and the 1 at a vector's end is :data:`COUNTED`, so that a vector u is at most
        sqrt(1 + COUNTED^2) long. The upper half of u'u, what is off its diagonal times sqrt(2), is as long as u'u is:
        |u|^2. One image adds V of them.

        Args:
            width: D, the features and a 1.
            views: V, of an image.

        Raises:
            UserError: when the accountant is not installed, or nothing gives so small an epsilon.
        """
        units = torch.full((width,), self.clip, dtype=torch.double)
        units[-1] = 1 / COUNTED
        shares = torch.full((width, width), 0.5**0.5, dtype=torch.double).fill_diagonal_(1)
        return self.multiplier() * views * (1 + COUNTED**2) * shares * torch.outer(units, units)

    def multiplier(self) -> float:
        """Return the deviation in units of the sensitivity, by Opacus' accountant (RDP: Mironov, CSF 2017)."""
        with of_extra("privacy", "noise is accounted for by Opacus"):
            from opacus.accountants.utils import get_noise_multiplier
        try:
            return float(
                get_noise_multiplier(
                    target_epsilon=self.epsilon,
                    target_delta=self.delta,
                    sample_rate=1.0,
                    steps=1,
                    accountant="rdp",
                    epsilon_tolerance=0.01 * self.epsilon,
                )
            )
        except ValueError as error:
            raise UserError(f"no noise gives epsilon {self.epsilon} ({error}): give more (--epsilon)") from error

    def added(self, second: Tensor, views: int) -> Tensor:
        """Return a symmetric sum of x'x, [D, D], with noise on each number."""
        generator = torch.Generator().manual_seed(secrets.randbits(63))
        drawn = torch.randn(second.shape, generator=generator, dtype=second.dtype)
        noise = (self.deviations(len(second), views) * drawn).triu()
        return second + noise + noise.triu(1).T

    def record(self) -> dict[str, Any]:
        """Return what a contribution says of it."""
        return {**asdict(self), "accountant": "opacus rdp"}


def asked_noise(epsilon: float | None, delta: float, clip: float | None) -> Noise | None:
    """Return the noise that is asked for; ``None``: none is.

    Raises:
        UserError: when one number is missing.
    """
    if epsilon is None and clip is None:
        return None
    if epsilon is None or clip is None:
        raise UserError("noise needs both numbers: give --epsilon and --clip")
    return Noise(epsilon, delta, clip)


def nearest_positive(matrix: Tensor) -> Tensor:
    """Return a symmetric matrix without its negative eigenvalues, which are nothing but noise."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0)) @ vectors.T
