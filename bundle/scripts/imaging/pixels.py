"""From pixels to the network's input, in NumPy: one arithmetic for training, every door and the edge.

Results are, to the bit, those of PyTorch's CPU kernels in one thread (MONAI's ``Resized(anti_aliasing=True)`` and
``NormalizeIntensityd``), on every machine and in any number of threads. Those kernels round a product and its sum once
where the processor can; double precision does so here, since it holds the product of two single numbers exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from scripts.imaging.image_spec import ImageSpec

Array = NDArray[np.float32]
Places = NDArray[np.intp]
Neighbours = tuple[Places, Places, Array]
TRUNCATED = 4.0  # standard deviations of the Gaussian that are computed, as MONAI does
SQRT_HALF = np.float32(0.70710678)  # as MONAI writes it


def network_input(pixels: NDArray[np.uint8], spec: ImageSpec) -> Array:
    """Return what a network sees of an image whose colours are not changed.

    Args:
        pixels: [H, W, 3] or [D, H, W, 1], 0..255.
        spec: without a colour transform.

    Returns:
        ``spec.shape``.
    """
    return normalised(resized(channels_first(pixels), spec.shape[1:]), spec.mean, spec.std)


def channels_first(pixels: NDArray[np.uint8]) -> Array:
    """Return pixels [..., C] as float32 [C, ...]."""
    return np.moveaxis(pixels, -1, 0).astype(np.float32, order="C")


def normalised(image: Array, mean: Sequence[float], std: Sequence[float]) -> Array:
    """Scale values 0..255 to 0..1, subtract the mean of each channel and divide by its deviation.

    Args:
        image: [C, ...].
        mean: of each channel or of all, of values 0..1.
        std: as the mean.
    """
    means, deviations = (np.asarray(values, np.float32).reshape(-1, *[1] * (image.ndim - 1)) for values in (mean, std))
    return (image / np.float32(255) - means) / deviations


def resized(image: Array, sides: Sequence[int]) -> Array:
    """Resize by linear interpolation between the centres of pixels, smoothed before along the axes that shrink.

    The smoothing is a Gaussian as in ``skimage.transform.resize``, with zeros beyond the border. It is computed where
    interpolation reads: all of a large image takes minutes.

    Args:
        image: [C, H, W] or [C, D, H, W]; one of these sides already is returned as it is.
        sides: height and width, or depth, height and width.
    """
    if image.shape[1:] == tuple(sides):
        return image
    around: list[Neighbours] = []
    for axis, (old, new) in enumerate(zip(image.shape[1:], sides, strict=True), start=1):
        before, after, share = neighbours(old, new)
        places = np.union1d(before, after)
        image = _smoothed(image, axis, taps(old, new), places)
        around.append((np.searchsorted(places, before), np.searchsorted(places, after), share))
    return interpolated(image, around)


def neighbours(length: int, size: int) -> Neighbours:
    """Return the pixels of an axis before and after each place of ``size`` that interpolation asks for.

    Returns:
        Their positions, 0 .. length - 1, and the share of the second, 0..1; each [size].
    """
    scale = np.float64(np.float32(length) / np.float32(size))
    place = np.maximum((scale * (np.arange(size) + 0.5) - 0.5).astype(np.float32), np.float32(0))
    before = np.minimum(place.astype(np.intp), length - 1)
    return before, np.minimum(before + 1, length - 1), np.minimum(place - before.astype(np.float32), np.float32(1))


def interpolated(image: Array, around: Sequence[Neighbours]) -> Array:
    """Interpolate an image [C, H, W] or a volume [C, D, H, W], whose axes are read as :func:`neighbours` says."""
    return _bilinear(image, *around) if len(around) == 2 else _trilinear(image, around)


def _bilinear(image: Array, rows: Neighbours, columns: Neighbours) -> Array:
    """Sum over four corners, each times its share of both axes."""
    (above, below, lower), (left, right, further) = rows, columns
    upper, lower, nearer = np.float32(1) - lower[:, None], lower[:, None], np.float32(1) - further
    first, second = image.take(above, 1), image.take(below, 1)
    total = upper * further * first.take(right, 2)
    total = _fused(total, upper * nearer, first.take(left, 2))
    total = _fused(total, lower * nearer, second.take(left, 2))
    return _fused(total, lower * further, second.take(right, 2))


def _trilinear(image: Array, around: Sequence[Neighbours]) -> Array:
    """Interpolate an axis after the other, the last one first."""
    for axis, (before, after, share) in reversed([*enumerate(around, start=1)]):
        weight = share.reshape([-1 if own == axis else 1 for own in range(image.ndim)])
        image = _fused(weight * image.take(after, axis), np.float32(1) - weight, image.take(before, axis))
    return image


def _fused(total: Array, factor: Array | np.float32, part: Array) -> Array:
    """Return ``total + factor * part``, rounded once."""
    return (total + np.multiply(factor, part, dtype=np.float64)).astype(np.float32)


@lru_cache(maxsize=64)
def taps(old: int, new: int) -> tuple[np.float32, ...]:
    """Return the Gaussian that an axis is smoothed with before it shrinks; one that does not is kept."""
    if new >= old:
        return (np.float32(1),)
    sigma = (np.float32(old) / np.float32(new) - np.float32(1)) / np.float32(2)
    half = int(max(float(sigma) * TRUNCATED, 0.5) + 0.5)
    places = np.arange(-half, half + 1, dtype=np.float32)
    before, after = (_erf(np.float32(1) / sigma * SQRT_HALF * (places + np.float32(shift))) for shift in (-0.5, 0.5))
    return tuple(np.maximum(np.float32(0.5) * (after - before), np.float32(0)))


def _erf(values: Array) -> Array:
    return np.array([math.erf(value) for value in values], np.float32)


def _smoothed(image: Array, axis: int, weights: Sequence[np.float32], places: Places) -> Array:
    """Convolve along an axis, with zeros beyond the border, at the places that are read."""
    if len(weights) == 1:
        return image.take(places, axis)
    half, length = len(weights) // 2, image.shape[axis]
    smooth = np.zeros([len(places) if own == axis else side for own, side in enumerate(image.shape)], np.float32)
    for shift, tap in enumerate(weights, start=-half):
        first, last = (int(np.searchsorted(places, edge - shift)) for edge in (0, length))
        inside = tuple(slice(first, last) if own == axis else slice(None) for own in range(image.ndim))
        smooth[inside] = _fused(smooth[inside], tap, image.take(places[first:last] + shift, axis))
    return smooth
