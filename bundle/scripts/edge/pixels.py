"""From a picture to the network's input, in NumPy: what training does, to rounding."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
TRUNCATED = 4.0  # standard deviations of the Gaussian that are computed, as MONAI does


def prepare(picture: NDArray[np.uint8], size: int, mean: Array, std: Array) -> Array:
    """Resize and normalise; see :mod:`scripts.transforms.pixels`.

    Args:
        picture: [H, W, 3], 0..255.
        size: of the sides asked for, in pixels.
        mean: of each channel, of values 0..1.
        std: of each channel.

    Returns:
        [3, size, size].
    """
    image = np.moveaxis(picture, -1, 0).astype(np.float32)
    if image.shape[1:] != (size, size):
        for axis in (1, 2):
            image = _smoothed(image, axis, _taps(image.shape[axis], size))
        for axis in (1, 2):
            image = _interpolated(image, axis, size)
    return (image / np.float32(255) - mean[:, None, None]) / std[:, None, None]


@lru_cache(maxsize=64)
def _taps(old: int, new: int) -> tuple[float, ...]:
    """Return the Gaussian that an axis is smoothed with before it shrinks; one that does not is kept."""
    if new >= old:
        return (1.0,)
    sigma = (old / new - 1) / 2
    half = int(max(sigma * TRUNCATED, 0.5) + 0.5)
    scale = math.sqrt(0.5) / sigma
    edges = [math.erf(scale * (position - 0.5)) / 2 for position in range(-half, half + 2)]
    return tuple(max(after - before, 0.0) for before, after in zip(edges, edges[1:], strict=False))


def _smoothed(image: Array, axis: int, taps: tuple[float, ...]) -> Array:
    """Convolve along an axis, with zeros beyond the border."""
    if len(taps) == 1:
        return image
    half = len(taps) // 2
    padding = [(half, half) if own == axis else (0, 0) for own in range(image.ndim)]
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(image, padding), len(taps), axis=axis)
    return windows @ np.array(taps, np.float32)


def _interpolated(image: Array, axis: int, size: int) -> Array:
    """Interpolate linearly between the centres of pixels."""
    length = image.shape[axis]
    position = np.maximum((np.arange(size) + 0.5) * (length / size) - 0.5, 0)
    below = np.minimum(position.astype(np.intp), length - 1)
    shape = [-1 if own == axis else 1 for own in range(image.ndim)]
    share = (position - below).astype(np.float32).reshape(shape)
    return image.take(below, axis) * (1 - share) + image.take(np.minimum(below + 1, length - 1), axis) * share
