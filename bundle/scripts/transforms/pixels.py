"""From a reference to a normalised tensor, without what MONAI's general transforms do for metadata."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from monai.config import KeysCollection
from monai.networks.layers import gaussian_1d
from monai.transforms.transform import MapTransform
from torch import Tensor
from torch.nn.functional import interpolate

from scripts.transforms.reader import ReferenceReader

FAR = 8
"""An image that shrinks by more than this is smoothed in place, and only where interpolation will read it."""
NEAR = 0.01


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
                mode = "bilinear" if len(sides) == 2 else "trilinear"
                resized[key] = interpolate(_smooth(image, sides)[None], sides, mode=mode)[0]
        return resized


def _smooth(image: Tensor, sides: Sequence[int]) -> Tensor:
    if any(old > FAR * new for old, new in zip(image.shape[1:], sides, strict=True)):
        return _shrunk(image, sides)
    for axis, side in enumerate(sides, start=1):
        image = _smoothed(image, axis, _taps(image.shape[axis], side))
    return image


@lru_cache(maxsize=64)
def _taps(old: int, new: int) -> tuple[float, ...]:
    """Return MONAI's Gaussian for an axis that shrinks from ``old`` to ``new`` pixels; one that does not is kept."""
    if new >= old:
        return (1.0,)
    sigma = (torch.tensor(float(old)) / torch.tensor(float(new)) - 1) / 2
    return tuple(gaussian_1d(sigma).tolist())


def _smoothed(image: Tensor, axis: int, taps: Sequence[float]) -> Tensor:
    """Return the sum of the image's shifted copies, each times its tap."""
    if len(taps) == 1:
        return image
    length, half = image.shape[axis], len(taps) // 2
    smooth = torch.zeros_like(image)
    for shift, tap in enumerate(taps, start=-half):
        inside = length - abs(shift)
        if inside > 0:
            part = image.narrow(axis, max(0, shift), inside)
            smooth.narrow(axis, max(0, -shift), inside).add_(part, alpha=tap)
    return smooth


def _shrunk(image: Tensor, sides: Sequence[int]) -> Tensor:
    """Put the smoothed values that interpolation to far smaller sides will read into the image, and return it.

    Smoothing all of a large image takes minutes: its pixels times the taps, of which there are as many more; and a
    copy of it may be a gigabyte.
    """
    places = [_places(old, new) for old, new in zip(image.shape[1:], sides, strict=True)]
    smooth = image
    for axis, (side, kept) in enumerate(zip(sides, places, strict=True), start=1):
        smooth = _smoothed_at(smooth, axis, _taps(image.shape[axis], side), kept)
    inside: tuple[Any, ...] = (slice(None), *torch.meshgrid(*places, indexing="ij"))
    image[inside] = smooth
    return image


def _places(old: int, new: int) -> Tensor:
    """Return which pixels of an axis linear interpolation reads; where rounding decides, the one beside them too."""
    exact = (torch.arange(new, dtype=torch.float64) + 0.5) * (old / new) - 0.5
    edges = torch.cat([exact - NEAR, exact + NEAR]).floor().long()
    return torch.cat([edges, edges + 1]).clamp(0, old - 1).unique()


def _smoothed_at(image: Tensor, axis: int, taps: Sequence[float], places: Tensor) -> Tensor:
    """Return some places of `_smoothed` along an axis."""
    if len(taps) == 1:
        return image.index_select(axis, places)
    length, half = image.shape[axis], len(taps) // 2
    smooth = torch.zeros_like(image.index_select(axis, places))
    for shift, tap in enumerate(taps, start=-half):
        first, last = (int(torch.searchsorted(places, edge - shift)) for edge in (0, length))
        part = image.index_select(axis, places[first:last] + shift)
        smooth.narrow(axis, first, last - first).add_(part, alpha=tap)
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
        """Normalise."""
        normalised = dict(data)
        for key in self.key_iterator(normalised):
            image = normalised[key]
            each = (-1, *[1] * (image.ndim - 1))  # of the channels, for every pixel
            normalised[key] = image.div_(255).sub_(self.mean.view(each)).div_(self.std.view(each))
        return normalised
