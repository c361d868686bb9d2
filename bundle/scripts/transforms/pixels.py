"""From a reference to a normalised tensor, without what MONAI's general transforms do for metadata."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms.transform import MapTransform

from scripts.transforms.reader import ReferenceReader


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
