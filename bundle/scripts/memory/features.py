"""Features of images under the network as it is now, without augmentation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from monai.data import DataLoader
from torch import Tensor, nn

from scripts.tasks.task import Item


class FeatureExtractor:
    """Compute the features that herding reads.

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

    @torch.no_grad()
    def __call__(self, items: Sequence[Item]) -> Tensor:
        """Return :attr:`scripts.networks.Outputs.embedding` of the images, [N, D], on the CPU."""
        self.network.eval()
        loader = DataLoader(self.dataset(list(items)), batch_size=self.batch_size, num_workers=0)
        batches = [self.network(batch["image"].to(self.device)).embedding.cpu() for batch in loader]
        return torch.cat(batches)
