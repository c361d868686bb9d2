"""Features of images under the network as it is now, without augmentation, each computed once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, groupby, islice
from operator import itemgetter

import torch
from monai.transforms.compose import Compose
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from scripts.imaging.transforms.views import seen_as
from scripts.learning.features.shares import everyones, same_buffers, share
from scripts.learning.sources.source import Item
from scripts.learning.tasks.dataset import ImageCache, ImageDataset
from scripts.model.networks.continual import ContinualNet
from scripts.utils.looked_on import looked_on

View = tuple[int, ...]


class FeatureExtractor:
    """Compute the features that herding, class means, heads in closed form and balanced fine-tuning read.

    What was computed is kept for as long as the weights below the head stay the same, so that no image passes the same
    network twice. Every pass has ``batch_size`` images, the last ones made up with black: an image's features are then
    the same to the bit whichever images it is computed with, in a run that goes on too, and in one of several
    processes, which compute a share each: all of them ask for the same features, or none does.

    Args:
        network: the growing network.
        preprocessing: the fixed transforms of an image.
        batch_size: images a forward pass.
        cache: keeps preprocessed images; ``None``: they are read each time.
        num_workers: processes that load images.
        max_bytes: once more is kept than this, it is forgotten before the next images.
    """

    def __init__(
        self,
        network: ContinualNet,
        preprocessing: Compose,
        batch_size: int,
        cache: ImageCache | None = None,
        num_workers: int = 0,
        max_bytes: int = 2**28,
    ) -> None:
        self.network = network
        self.dataset: Callable[[Sequence[Item]], Dataset] = partial(ImageDataset, transform=preprocessing, cache=cache)
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.max_bytes = max_bytes
        self._known: dict[tuple[str, View], Tensor] = {}
        self._weights = b""

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    def images(self, items: Sequence[Item], batch_size: int | None = None) -> Iterator[Tensor]:
        """Yield the images as the network sees them, in batches, where the network is."""
        own = torch.Generator()  # what is drawn elsewhere must not depend on what is known here
        size = batch_size or self.batch_size
        bare = [{"image": item["image"], "label": 0} for item in items]  # labels of several tasks may make no batch
        for batch in DataLoader(self.dataset(bare), size, num_workers=self.num_workers, generator=own):
            yield batch["image"].to(self.device)

    def __call__(self, items: Sequence[Item], views: Sequence[Sequence[int]] = ((),)) -> Tensor:
        """Return what herding reads of :meth:`features`, [N V, D], the V views of an image together."""
        return self.network.embedding(self.features(items, views).flatten(0, 1))

    def features(self, items: Sequence[Item], views: Sequence[Sequence[int]] = ((),)) -> Tensor:
        """Return the features of every branch, [N, V, R, d], on the CPU.

        Args:
            items: N images.
            views: of each; see :func:`scripts.imaging.transforms.seen_as`.
        """
        self._forget()
        keys = [[(item["image"], tuple(view)) for view in views] for item in items]
        missing: dict[str, dict[View, None]] = {}
        for reference, view in chain.from_iterable(keys):
            if (reference, view) not in self._known:
                missing.setdefault(reference, {})[view] = None
        if wanted := [(image, view) for image in missing for view in missing[image]]:
            own = share(wanted)
            passed = torch.stack(self._passed(self._views(own), len(own)))
            self._known.update(zip(wanted, everyones(passed, len(wanted)), strict=True))
        return torch.stack([torch.stack([self._known[key] for key in of_item]) for of_item in keys])

    def augmented(self, images: ImageDataset) -> Tensor:
        """Return the features [N, R, d] of the images of a data set as they are augmented now; nothing is kept."""
        return torch.stack(self._passed((images[index]["image"] for index in range(len(images))), len(images)))

    def _views(self, wanted: Sequence[tuple[str, View]]) -> Iterator[Tensor]:
        """Give views of images; an image whose views are neighbours is loaded once."""
        own = [list(views) for _, views in groupby(wanted, key=itemgetter(0))]
        images = (image for batch in self.images([{"image": views[0][0]} for views in own]) for image in batch.split(1))
        for image, views in zip(images, own, strict=True):
            yield from (seen_as(image, view)[0] for _, view in views)

    @torch.no_grad()
    def _passed(self, images: Iterable[Tensor], count: int) -> list[Tensor]:
        """Return the features of each of so many images, [R, d], as tensors of their own."""
        self.network.eval()
        waiting, found = iter(looked_on(images, "Computing features of", count)), []
        while batch := list(islice(waiting, self.batch_size)):
            black = torch.zeros_like(batch[0]).expand(self.batch_size - len(batch), *batch[0].shape)
            features = self.network.backbone(torch.cat([torch.stack(batch), black]).to(self.device)).cpu()
            found += [vector.clone() for vector in features[: len(batch)]]
        return found

    def _forget(self) -> None:
        """Forget the features of other weights, and all where they take too much room, in every process at once."""
        same_buffers(self.network)
        backbone = self.network.backbone
        digest = hashlib.blake2b(repr(backbone.branches).encode())
        for name, tensor in backbone.state_dict().items():
            digest.update(name.encode() + tensor.cpu().numpy().tobytes())
        if digest.digest() != self._weights or sum(known.nbytes for known in self._known.values()) > self.max_bytes:
            self._known, self._weights = {}, digest.digest()
