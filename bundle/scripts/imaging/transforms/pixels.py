"""From a reference to a normalised tensor, without what MONAI's general transforms do for metadata.

:mod:`scripts.imaging.pixels` computes the same to the bit, in NumPy; PyTorch smooths several times as fast.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms.transform import MapTransform
from torch import Tensor

from scripts.imaging.pixels import Neighbours, interpolated, neighbours, taps
from scripts.imaging.transforms.reader import ReferenceReader

FAR = 8
"""An image that shrinks by more than this is smoothed in place, and only where interpolation will read it."""


class LoadPixelsd(MapTransform):
    """Replace references by images: float32 ``[3, H, W]`` or volumes ``[1, D, H, W]``, values 0..255.

    The result is that of ``LoadImaged(reader=reader)`` and ``EnsureChannelFirstd(channel_dim=-1)``, without metadata.

    Args:
        keys: of the references.
        reader: decodes one image.
    """

    def __init__(self, keys: KeysCollection, reader: ReferenceReader) -> None:
        super().__init__(keys)
        self.reader = reader

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Read.

        Raises:
            UserError: for an image that cannot be read.
        """
        loaded = dict(data)
        for key in self.key_iterator(loaded):
            pixels = torch.from_numpy(self.reader.pixels(loaded[key])).movedim(-1, 0)
            loaded[key] = pixels.to(torch.float32, memory_format=torch.contiguous_format)
        return loaded


class ResizePixelsd(MapTransform):
    """Resize images and volumes by (bi-, tri-)linear interpolation, smoothed before along the axes that shrink.

    The result is that of MONAI's ``Resized(anti_aliasing=True)`` with ``mode="bilinear"`` or ``"trilinear"``, whose
    Gaussian filter (as of ``skimage.transform.resize``; zeros beyond the border) is a convolution that takes up to ten
    times as long.

    Args:
        keys: of the images, float32 ``[C, H, W]`` or ``[C, D, H, W]``.
        spatial_size: height and width, or depth, height and width.
    """

    def __init__(self, keys: KeysCollection, spatial_size: int | Sequence[int]) -> None:
        super().__init__(keys)
        self.spatial_size = spatial_size if isinstance(spatial_size, int) else tuple(spatial_size)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Resize; an image of that size is passed on as it is."""
        resized = dict(data)
        for key in self.key_iterator(resized):
            image = resized[key]
            sides = self.spatial_size
            if isinstance(sides, int):
                sides = (sides,) * (image.ndim - 1)
            if image.shape[1:] != sides:
                around = [neighbours(old, new) for old, new in zip(image.shape[1:], sides, strict=True)]
                resized[key] = torch.from_numpy(interpolated(_smooth(image, sides, around).numpy(), around))
        return resized


def _smooth(image: Tensor, sides: Sequence[int], around: Sequence[Neighbours]) -> Tensor:
    if any(old > FAR * new for old, new in zip(image.shape[1:], sides, strict=True)):
        return _shrunk(image, sides, around)
    for axis, side in enumerate(sides, start=1):
        image = _smoothed(image, axis, taps(image.shape[axis], side))
    return image


def _smoothed(image: Tensor, axis: int, weights: Sequence[np.float32]) -> Tensor:
    """Return the sum of the image's shifted copies, each times its weight."""
    if len(weights) == 1:
        return image
    length, half = image.shape[axis], len(weights) // 2
    smooth = torch.zeros_like(image)
    for shift, tap in enumerate(weights, start=-half):
        inside = length - abs(shift)
        if inside > 0:
            part = image.narrow(axis, max(0, shift), inside)
            smooth.narrow(axis, max(0, -shift), inside).add_(part, alpha=float(tap))
    return smooth


def _shrunk(image: Tensor, sides: Sequence[int], around: Sequence[Neighbours]) -> Tensor:
    """Put the smoothed values that interpolation to far smaller sides will read into the image, and return it.

    Smoothing all of a large image takes minutes: its pixels times the taps, of which there are as many more; and a
    copy of it may be a gigabyte.
    """
    places = [torch.from_numpy(np.union1d(before, after)) for before, after, _ in around]
    smooth = image
    for axis, (side, kept) in enumerate(zip(sides, places, strict=True), start=1):
        smooth = _smoothed_at(smooth, axis, taps(image.shape[axis], side), kept)
    inside: tuple[Any, ...] = (slice(None), *torch.meshgrid(*places, indexing="ij"))
    image[inside] = smooth
    return image


def _smoothed_at(image: Tensor, axis: int, weights: Sequence[np.float32], places: Tensor) -> Tensor:
    """Return some places of `_smoothed` along an axis."""
    if len(weights) == 1:
        return image.index_select(axis, places)
    length, half = image.shape[axis], len(weights) // 2
    smooth = torch.zeros_like(image.index_select(axis, places))
    for shift, tap in enumerate(weights, start=-half):
        first, last = (int(torch.searchsorted(places, edge - shift)) for edge in (0, length))
        part = image.index_select(axis, places[first:last] + shift)
        smooth.narrow(axis, first, last - first).add_(part, alpha=float(tap))
    return smooth


class NormalizePixelsd(MapTransform):
    """Scale images from 0..255 to 0..1, subtract ``mean`` and divide by ``std``, in place.

    The result is, to the last bit, that of ``ScaleIntensityRanged(a_min=0, a_max=255, b_min=0, b_max=1)`` and
    ``NormalizeIntensityd(subtrahend=mean, divisor=std, channel_wise=True)``.

    Args:
        keys: of the images, float32 ``[C, H, W]`` or ``[C, D, H, W]``.
        mean: of each channel, of values 0..1.
        std: of each channel.
    """

    def __init__(self, keys: KeysCollection, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__(keys)
        self.mean = torch.tensor(mean)
        self.std = torch.tensor(std)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        normalised = dict(data)
        for key in self.key_iterator(normalised):
            image = normalised[key]
            each = (-1, *[1] * (image.ndim - 1))  # of the channels, for every pixel
            normalised[key] = image.div_(255).sub_(self.mean.view(each)).div_(self.std.view(each))
        return normalised
