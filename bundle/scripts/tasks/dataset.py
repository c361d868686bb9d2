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

from scripts.tasks.task import Item


class ImageCache:
    """Keeps preprocessed images until it is full; nothing is ever thrown out.

    May be shared by data sets: an image is found again only under the same preprocessing (see `ImageDataset`).

    Args:
        max_bytes: the images kept never take more than this.
    """

    def __init__(self, max_bytes: int = 2**30) -> None:
        self.max_bytes = max_bytes
        self.used_bytes = 0
        self._images: dict[tuple[str, str], torch.Tensor] = {}

    def __len__(self) -> int:
        return len(self._images)

    def get(self, preprocessing: str, reference: str) -> torch.Tensor | None:
        """Return the image, or ``None`` where it is not kept."""
        return self._images.get((preprocessing, reference))

    def put(self, preprocessing: str, reference: str, image: torch.Tensor) -> None:
        """Keep the image if there is room."""
        size = image.element_size() * image.nelement()
        if (preprocessing, reference) not in self._images and self.used_bytes + size <= self.max_bytes:
            self._images[preprocessing, reference] = image
            self.used_bytes += size


class ImageDataset(Dataset):
    """Gives ``{"image": tensor [3, H, W], "label": int, "index": position in data}``.

    The leading part of ``transform``, up to the first random one (as `monai.data.CacheDataset` has it), is done once
    an image where a cache is given. The cache knows it by what that part is made of, so that two data sets share an
    image only where their leading parts are equal.

    Args:
        data: items with ``image`` and ``label``; may be replaced by `set_data`.
        transform: dictionary transforms; they read ``image``.
        cache: where to keep images; ``None`` decodes every time.
    """

    def __init__(self, data: Sequence[Item], transform: Compose, cache: ImageCache | None = None) -> None:
        super().__init__(data, transform)
        self.cache = cache
        first_random = self.transform.get_index_of_first(
            lambda t: isinstance(t, RandomizableTrait) or not isinstance(t, Transform)
        )
        self._fixed = len(self.transform.transforms) if first_random is None else first_random
        self._preprocessing = _fingerprint(self.transform.transforms[: self._fixed])

    def set_data(self, data: Sequence[Item]) -> None:
        """Replace the items; what the cache keeps stays."""
        self.data = data

    def _transform(self, index: int) -> dict[str, Any]:
        index = range(len(self.data))[index]
        item = self.data[index]
        result = self.transform({"image": self._preprocessed(item["image"])}, start=self._fixed)
        return {"image": _plain(result["image"]), "label": item["label"], "index": index}

    def _preprocessed(self, reference: str) -> torch.Tensor:
        """Return a tensor of its own, which the random part may change."""
        image = None if self.cache is None else self.cache.get(self._preprocessing, reference)
        if image is None:
            image = _plain(self.transform({"image": reference}, end=self._fixed)["image"])
            if self.cache is None:
                return image
            self.cache.put(self._preprocessing, reference, image)
        return image.clone()


def _plain(image: torch.Tensor) -> torch.Tensor:
    """Drop MONAI's metadata, which costs memory and time and is not read."""
    return image.as_subclass(torch.Tensor)


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
