"""From a reference to a normalised tensor, without what MONAI's general transforms do for volumes and metadata."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms.transform import MapTransform

from scripts.transforms.reader import read_rgb


class LoadRGBd(MapTransform):
    """Replace references by images: float32 ``[3, H, W]``, values 0..255; see :func:`scripts.transforms.read_rgb`.

    The result is that of ``LoadImaged(reader=RGBReader())`` and ``EnsureChannelFirstd(channel_dim=-1)``, without
    metadata.

    Args:
        keys: of the references.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Read.

        Raises:
            UserError: for an image that cannot be read.
        """
        loaded = dict(data)
        for key in self.key_iterator(loaded):
            pixels = torch.from_numpy(read_rgb(loaded[key])).permute(2, 0, 1)
            loaded[key] = pixels.to(torch.float32, memory_format=torch.contiguous_format)
        return loaded


class NormalizeRGBd(MapTransform):
    """Scale images from 0..255 to 0..1, subtract ``mean`` and divide by ``std``, in place.

    The result is, to the last bit, that of ``ScaleIntensityRanged(a_min=0, a_max=255, b_min=0, b_max=1)`` and
    ``NormalizeIntensityd(subtrahend=mean, divisor=std, channel_wise=True)``.

    Args:
        keys: of the images, float32 ``[3, H, W]``.
        mean: of each channel, of values 0..1.
        std: of each channel.
    """

    def __init__(self, keys: KeysCollection, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__(keys)
        self.mean = torch.tensor(mean)[:, None, None]
        self.std = torch.tensor(std)[:, None, None]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Normalise."""
        normalised = dict(data)
        for key in self.key_iterator(normalised):
            normalised[key] = normalised[key].div_(255).sub_(self.mean).div_(self.std)
        return normalised
