"""Features in place of images, for stages that train nothing below the head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from monai.data import Dataset
from monai.transforms import RandFlipd
from monai.transforms.traits import RandomizableTrait
from torch import Tensor

from scripts.imaging.transforms.views import FlipDraw, flipped_axes
from scripts.learning.features.extractor import FeatureExtractor
from scripts.learning.sources.source import Item
from scripts.learning.tasks.dataset import ImageDataset


class FeatureDataset(Dataset):
    """Gives ``{"image": features [R, d] of a view, "label": Tensor, "index": position}``, a view drawn each time.

    Args:
        items: N images with ``label``.
        features: of the V views of each image, [N, V, R, d].
        draw: draws a view, 0 .. V - 1.
    """

    def __init__(self, items: Sequence[Item], features: Tensor, draw: Callable[[], int]) -> None:
        super().__init__(items)
        self.features = features
        self.draw = draw

    def _transform(self, index: int) -> dict[str, Any]:
        label = torch.tensor(self.data[index]["label"])
        return {"image": self.features[index, self.draw()], "label": label, "index": index}


def finite_views(images: ImageDataset) -> FlipDraw | None:
    """Return what draws a view of the images as their augmentation does; ``None`` where it has no end.

    Args:
        images: with their transforms.
    """
    random = [transform for transform in images.transform.transforms if isinstance(transform, RandomizableTrait)]
    flips = [transform for transform in random if isinstance(transform, RandFlipd) and flipped_axes(transform)]
    return FlipDraw(flips) if len(flips) == len(random) else None


class StageFeatures:
    """Computes the features of a stage's images once, in place of a pass through the network in each epoch.

    Args:
        features: computes features.
        views: augmented views of each image, drawn once, of augmentation that has no end; ``None``: such images pass
            in each epoch. Where flips are all there is, every view is computed, and an epoch sees those it would have
            seen of the images.
    """

    def __init__(self, features: FeatureExtractor, views: int | None = None) -> None:
        self.features = features
        self.views = views

    def of(self, images: ImageDataset, epochs: int) -> Dataset:
        """Return features for a data set of images, or the images where that takes fewer passes.

        Args:
            images: with their items and transforms.
            epochs: how often a stage goes through it.
        """
        draw = finite_views(images)
        if draw is not None:
            if len(draw.views) < epochs:
                return FeatureDataset(images.data, self.features.features(images.data, draw.views), draw)
        elif self.views is not None:
            drawn = torch.stack([self.features.augmented(images) for _ in range(self.views)], 1)
            return FeatureDataset(images.data, drawn, partial(np.random.randint, self.views))
        return images
