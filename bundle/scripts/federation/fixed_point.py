"""Sums as 64-bit integers: they add exactly, in any order, and modulo 2^64, as masks need it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scripts.utils.errors import UserError

FRACTION = 30
"""Bits behind the point: a number is right to 5e-10."""
MOST_SITES = 1024
"""So many contributions cannot overflow."""
_ONE = 2.0**FRACTION
_LARGEST = 2.0 ** (63 - FRACTION) / MOST_SITES

Integers = NDArray[np.int64]


def to_fixed(values: NDArray[np.floating]) -> Integers:
    """Return numbers in fixed point.

    Raises:
        UserError: for what is no number, or too large to be added to that of others.
    """
    wide = np.asarray(values, np.float64)
    if not (np.abs(wide) < _LARGEST).all():  # false for nan, too
        raise UserError(
            f"sums have numbers of {np.abs(wide).max():.3g}, and hold less than {_LARGEST:.3g}: contribute fewer "
            "images a class at a time (as several sites), or look for features that are no numbers"
        )
    return np.rint(wide * _ONE).astype(np.int64)


def from_fixed(values: Integers) -> NDArray[np.float64]:
    """Return the numbers of :func:`to_fixed`."""
    return values.astype(np.float64) / _ONE


def triangle(matrix: Tensor) -> NDArray[np.float64]:
    """Return the upper half of a symmetric matrix [D, D], its diagonal included, as [D (D + 1) / 2]."""
    rows, columns = torch.triu_indices(len(matrix), len(matrix))
    return matrix[rows, columns].numpy()


def symmetric(half: NDArray[np.floating]) -> Tensor:
    """Return the symmetric matrix of :func:`triangle`, float64."""
    width = width_of(len(half))
    matrix = torch.zeros(width, width, dtype=torch.double)
    rows, columns = torch.triu_indices(width, width)
    values = torch.from_numpy(np.asarray(half, np.float64))
    matrix[rows, columns] = values
    matrix[columns, rows] = values
    return matrix


def width_of(length: int) -> int:
    """Return D of a triangle of so many numbers."""
    return round(((8 * length + 1) ** 0.5 - 1) / 2)
