"""Features of images under the network as it is now, without augmentation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from monai.data import DataLoader
from torch import Tensor, nn

from scripts.tasks.task import Item


class FeatureExtractor:
    """Compute the features that herding and heads in closed form read.

    Args:
        network: a :class:`scripts.networks.ContinualNet`.
        dataset: makes a data set of items, without augmentation.
        batch_size: images a forward pass.
        device: where the network is.
    """

    def __init__(
        self,
        network: nn.Module,
        dataset: Callable[[Sequence[Item]], torch.utils.data.Dataset],
        batch_size: int,
        device: str,
    ) -> None:
        self.network = network
        self.dataset = dataset
        self.batch_size = batch_size
        self.device = device

    def images(self, items: Sequence[Item], batch_size: int | None = None) -> Iterator[Tensor]:
        """Yield the images as the network sees them, in batches, where the network is."""
        loader = DataLoader(self.dataset(list(items)), batch_size=batch_size or self.batch_size, num_workers=0)
        for batch in loader:
            yield batch["image"].to(self.device)

    @torch.no_grad()
    def __call__(self, items: Sequence[Item], views: Sequence[Sequence[int]] = ((),)) -> Tensor:
        """Return :attr:`scripts.networks.Outputs.embedding`, [N V, D], on the CPU, the V views of an image together.

        Args:
            items: N images.
            views: the axes of a batch that each view flips; see :func:`scripts.transforms.flip_views`.
        """
        self.network.eval()
        return torch.cat([self._features(images, views) for images in self.images(items)])

    def _features(self, images: Tensor, views: Sequence[Sequence[int]]) -> Tensor:
        seen = [self.network(images.flip(list(view))).embedding for view in views]
        return torch.stack(seen, 1).flatten(0, 1).cpu()
