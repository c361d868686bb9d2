"""The maps before the first adapter in place of images, for stages that train nothing before it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from monai.data import Dataset
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from scripts.imaging.transforms.views import seen_as
from scripts.learning.features.dataset import FeatureDataset, finite_views
from scripts.learning.features.extractor import FeatureExtractor, View
from scripts.learning.sources.source import Item
from scripts.learning.tasks.dataset import ImageDataset
from scripts.utils.files import cannot_write


class StemMapDataset(FeatureDataset):
    """Gives ``{"image": map [c, H, W] before the first adapter, ...}``: see :class:`FeatureDataset`."""


class StemMaps:
    """Computes what stands before the first adapter once a stage, in place of a part of every pass.

    That part of the backbone is frozen for the whole life of the network. Maps are as computed in another batch: they
    differ by rounding alone.

    Args:
        features: whose network it is, and who loads the images.
        least_share: of the FLOPs of a pass, what must stand before the first adapter; with less, reading the maps costs
            what it saves.
        max_bytes: maps that take more lie in a temporary file (in the folder of TMPDIR), which has no name and goes
            with the process.
    """

    def __init__(self, features: FeatureExtractor, least_share: float = 0.3, max_bytes: int = 2**28) -> None:
        self.features = features
        self.least_share = least_share
        self.max_bytes = max_bytes

    def of(self, images: ImageDataset, epochs: int) -> Dataset:
        """Return maps for a data set of images, or the images where that takes fewer passes or saves little.

        Args:
            images: with their items and transforms.
            epochs: how often a stage goes through it.

        Raises:
            UserError: where the disk is full.
        """
        draw = finite_views(images)
        if draw is None or len(draw.views) >= epochs or self.share(images.data[0]) < self.least_share:
            return images
        return StemMapDataset(images.data, self.maps(images.data, draw.views), draw)

    @torch.no_grad()
    def share(self, item: Item) -> float:
        """Return the share of the FLOPs of a forward pass that stands before the first adapter, 0..1."""
        backbone = self.features.network.eval().adapted()
        image = next(self.features.images([item]))
        counted = []
        for part in (backbone.below_adapters, backbone):
            with FlopCounterMode(display=False) as counter:
                part(image)
            counted.append(counter.get_total_flops())
        return counted[0] / counted[1]

    def maps(self, items: Sequence[Item], views: Sequence[View]) -> Tensor:
        """Return the maps of V views of N images, [N, V, c, H, W], on the CPU.

        Raises:
            UserError: where the disk is full.
        """
        batches = self._batches(items, views)
        first = next(batches)
        shape = (len(items), *first.shape[1:])
        if first[0].nbytes * len(items) <= self.max_bytes:
            return torch.cat([first, *batches])
        with tempfile.TemporaryFile() as file:
            try:
                for maps in (first, *batches):
                    file.write(maps.numpy().tobytes())
                file.flush()
            except OSError as error:
                raise cannot_write(tempfile.gettempdir(), error) from error
            return torch.from_numpy(np.memmap(file, np.float32, "c", shape=shape))

    @torch.no_grad()
    def _batches(self, items: Sequence[Item], views: Sequence[View]) -> Iterator[Tensor]:
        """Yield the maps of a few images at a time, [B, V, c, H, W]."""
        backbone = self.features.network.eval().adapted()
        for images in self.features.images(items):
            maps = [backbone.below_adapters(seen_as(images, view)).cpu() for view in views]
            yield torch.stack(maps, 1).contiguous()
