"""The data set that training and evaluation draw from, and the memory of what was already decoded."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Sequence
from typing import Any

import torch
from monai.data.dataset import Dataset
from monai.transforms.compose import Compose
from monai.transforms.traits import RandomizableTrait
from monai.transforms.transform import Transform
from torch.utils.data import get_worker_info

from scripts.imaging.transforms.pixels import NormalizePixelsd
from scripts.learning.sources.source import Item
from scripts.utils.errors import find_user_error

_OVERHEAD = 768  # bytes of Python's objects for an image, as measured


class ImageCache:
    """Keeps preprocessed images until it is full; nothing is ever thrown out.

    An image of whole numbers from 0 to 255 (one that was not resized) is kept as bytes, a quarter of its float32.
    May be shared by data sets: an image is found again only under the same preprocessing (see `ImageDataset`). A
    loader's worker finds what its parent had kept when it began, and keeps nothing itself: it ends with the epoch.

    Args:
        max_bytes: the images kept never take more than this, in all processes together.
    """

    def __init__(self, max_bytes: int = 2**30) -> None:
        self.max_bytes = max_bytes
        self.used_bytes = 0
        self._images: dict[tuple[str, str], tuple[torch.Tensor, torch.dtype]] = {}

    def __len__(self) -> int:
        return len(self._images)

    def get(self, preprocessing: str, reference: str) -> torch.Tensor | None:
        """Return the image, a tensor of its own, or ``None`` where it is not kept."""
        image, dtype = self._images.get((preprocessing, reference), (None, None))
        return None if image is None else image.to(dtype, copy=True)

    def put(self, preprocessing: str, reference: str, image: torch.Tensor) -> None:
        """Keep a copy of the image if there is room."""
        if (preprocessing, reference) in self._images or get_worker_info() is not None:
            return
        if self.used_bytes + image.nelement() + _OVERHEAD > self.max_bytes:  # not even as bytes
            return
        kept = _as_bytes(image)
        size = kept.nbytes + _OVERHEAD
        if self.used_bytes + size <= self.max_bytes:
            self._images[preprocessing, reference] = kept, image.dtype
            self.used_bytes += size


class ImageDataset(Dataset):
    """Gives ``{"image": tensor [C, H, W] or [C, D, H, W], "label": Tensor, "index": position in data}``.

    The leading part of ``transform``, up to the first random one (as `monai.data.CacheDataset` has it) or to the
    normalisation, which costs less than the room its result takes, is done once an image where a cache is given. The
    cache knows it by what that part is made of, so that two data sets share an image only where their leading parts
    are equal.

    Args:
        data: items with ``image`` and ``label`` (see :mod:`scripts.learning.tasks.labels`); may be replaced by
            `set_data`.
        transform: dictionary transforms; they read ``image``.
        cache: where to keep images; ``None`` decodes every time.
    """

    def __init__(self, data: Sequence[Item], transform: Compose, cache: ImageCache | None = None) -> None:
        super().__init__(data, transform)
        self.cache = cache
        first_repeated = self.transform.get_index_of_first(
            lambda t: isinstance(t, (RandomizableTrait, NormalizePixelsd)) or not isinstance(t, Transform)
        )
        self._fixed = self.transform.transforms[:first_repeated]
        self._repeated = [] if first_repeated is None else self.transform.transforms[first_repeated:]
        self._preprocessing = _fingerprint(self._fixed)

    def set_data(self, data: Sequence[Item]) -> None:
        """Replace the items; what the cache keeps stays."""
        self.data = data

    def _transform(self, index: int) -> dict[str, Any]:
        index = range(len(self.data))[index]
        item = self.data[index]
        image = _applied(self._repeated, self._preprocessed(item["image"]))
        return {"image": image, "label": torch.tensor(item["label"]), "index": index}

    def _preprocessed(self, reference: str) -> torch.Tensor:
        """Return a tensor of its own, which the random part may change."""
        image = None if self.cache is None else self.cache.get(self._preprocessing, reference)
        if image is None:
            image = self._decoded(reference)
            if self.cache is not None:
                self.cache.put(self._preprocessing, reference, image)
        return image

    def _decoded(self, reference: str) -> torch.Tensor:
        try:
            return _applied(self._fixed, reference)
        except Exception as error:  # a loader's worker hands on what was raised, without its causes
            user_error = find_user_error(error)
            if user_error is None:
                raise
            raise user_error from error


def _as_bytes(image: torch.Tensor) -> torch.Tensor:
    """Return a copy of the image, as uint8 where that loses nothing."""
    packed = image.to(torch.uint8, memory_format=torch.contiguous_format, copy=True)
    return packed if torch.equal(packed.to(image.dtype), image) else image.clone(memory_format=torch.contiguous_format)


def _applied(transforms: Sequence[Any], image: str | torch.Tensor) -> torch.Tensor:
    """Apply transforms one after the other, and drop MONAI's metadata, which costs memory and time and is not read.

    What `Compose` does besides, for lazy transforms and lists of images, would cost as much as a small image's own.
    """
    data: dict[str, Any] = {"image": image}
    for transform in transforms:
        data = transform(data)
    return data["image"].as_subclass(torch.Tensor)


def _fingerprint(transforms: Sequence[Any]) -> str:
    """Return the same text for transforms of the same kinds and settings; for what has no value, one of its own."""
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer)
    pickler.fast = True  # no back references: equal settings give equal bytes, whichever objects they are shared by
    try:
        pickler.dump(list(transforms))
    except Exception:  # a lambda, a cycle, an open file: pickle has no common base for what it refuses
        return f"{id(transforms)}"
    return hashlib.sha256(buffer.getvalue()).hexdigest()
