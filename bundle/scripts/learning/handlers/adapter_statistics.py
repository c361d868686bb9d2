"""Measure what some merging strategies read of a task: its images, its Fisher information, its layers' inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from scripts.learning.engines.events import ContinualEvents
from scripts.learning.engines.trainer import ContinualTrainer
from scripts.learning.features.extractor import FeatureExtractor
from scripts.learning.sources.source import Item
from scripts.model.networks.adapter_statistics import AdapterStatistics
from scripts.model.networks.continual import ContinualNet
from scripts.model.networks.fisher import fisher_diagonal
from scripts.utils.errors import UserError

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED)
OF_PARAMETERS = ("fisher", "gram")


class AdapterStatisticsHandler:
    """Measure the newest adapters on their task's training images, while their auxiliary head is still there.

    Args:
        network: the growing network.
        statistics: keeps what is measured.
        features: reads images, without augmentation.
        kinds: keys of :data:`KINDS`; those that a strategy needs are named by
            :meth:`scripts.model.networks.Merging.needs`.

    Raises:
        UserError: for an unknown kind, and one that low-rank adapters do not have.
    """

    def __init__(
        self, network: ContinualNet, statistics: AdapterStatistics, features: FeatureExtractor, kinds: Sequence[str]
    ) -> None:
        for kind in kinds:
            if kind not in KINDS:
                raise UserError(f"unknown '{kind}': choose some of {', '.join(KINDS)} (argument 'kinds')")
            adapter = network.backbone.adapter
            if adapter is not None and adapter.products and kind in OF_PARAMETERS:
                raise UserError(
                    f"'{kind}' is measured of adapters' parameters, but of '{adapter.kind}' products are merged: use "
                    "another way of merging (key 'merging#row')"
                )
        self.network = network
        self.statistics = statistics
        self.features = features
        self.kinds = kinds

    def attach(self, engine: ContinualTrainer) -> None:
        """Act once a task's adapters are tuned, while the auxiliary head is still there."""
        engine.add_event_handler(ContinualEvents.ADAPTER_TUNING_COMPLETED, self)

    def __call__(self, engine: ContinualTrainer) -> None:
        self.network.eval()
        number = len(self.network.classes) - 1
        items = list(engine.current_task.train)
        branch = self.network.branch(f"task{number}")
        measured = {kind: KINDS[kind](self.network, branch, self.features, items) for kind in self.kinds}
        self.statistics.put(number, measured)


def count_samples(
    network: ContinualNet, branch: nn.Module, features: FeatureExtractor, items: Sequence[Item]
) -> dict[str, Tensor]:
    """Return the number of images, for each entry that is merged."""
    return dict.fromkeys(network.mergeable_state(network.adapter_branches()[-1]), torch.tensor(float(len(items))))


def copy_auxiliary(
    network: ContinualNet, branch: nn.Module, features: FeatureExtractor, items: Sequence[Item]
) -> dict[str, Tensor]:
    """Return the auxiliary head, which a head fitted later can start from; no strategy reads it."""
    assert network.auxiliary is not None
    return {key: value.cpu().clone() for key, value in network.auxiliary.state_dict().items()}


def auxiliary_fisher(
    network: ContinualNet, branch: nn.Module, features: FeatureExtractor, items: Sequence[Item]
) -> dict[str, Tensor]:
    """Return the diagonal of the Fisher information of the branch's parameters under the auxiliary head."""
    parameters = {name: value for name, value in branch.named_parameters() if value.requires_grad}
    images = features.images(items, batch_size=1)
    return fisher_diagonal(parameters, lambda image: network(image).auxiliary, images)


@torch.no_grad()
def gram_matrices(
    network: ContinualNet, branch: nn.Module, features: FeatureExtractor, items: Sequence[Item]
) -> dict[str, Tensor]:
    """Return, for each convolution's and linear layer's weight, the Gram matrix of its inputs, summed over all.

    Each has the weight's shape twice over, with 1 for the outputs; see :func:`scripts.model.networks.merging.regmean`.
    Source: Jin et al., Dataless knowledge fusion (RegMean, ICLR 2023).
    """
    grams: dict[str, Tensor] = {}
    hooks = []

    def adder(name: str) -> Callable[..., None]:
        def add(layer: Any, inputs: tuple[Tensor, ...]) -> None:
            gram = input_gram(layer, inputs[0])
            grams[name] = grams[name] + gram if name in grams else gram

        return add

    for name, layer in _plain_layers(branch):
        hooks.append(layer.register_forward_pre_hook(adder(f"{name}.weight")))
    for images in features.images(items):
        network(images)
    for hook in hooks:
        hook.remove()
    return {name: gram.float().cpu() for name, gram in grams.items()}


def _plain_layers(branch: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield the layers that are linear maps of patches of their input as these are; others are averaged."""
    for name, layer in branch.named_modules():
        if isinstance(layer, nn.Linear):
            yield name, layer
        elif isinstance(layer, CONVOLUTIONS) and layer.groups == 1 and set(layer.dilation) == {1}:
            simple = set(layer.stride) == {1} and set(layer.padding) == {0} and set(layer.output_padding) == {0}
            if simple or not isinstance(layer, TRANSPOSED):
                yield name, layer


def input_gram(layer: nn.Linear | nn.Conv2d | nn.ConvTranspose2d, x: Tensor) -> Tensor:
    """Return the sum of x'x over the inputs of a layer, or the patches of its input, in its weight's own axes.

    Args:
        layer: linear, a convolution, or a transposed one of stride 1 without padding; of any dimension.
        x: its input, [N, ..., in] or [N, in, H, W].

    Returns:
        In float64, [1, in, k, k, 1, in, k, k], [1, in, 1, in] for linear, [in, 1, k, k, in, 1, k, k] for transposed.
    """
    single = list(layer.weight.shape)
    patches = x.reshape(-1, x.shape[-1]) if isinstance(layer, nn.Linear) else _patches(layer, x)
    single[1 if isinstance(layer, TRANSPOSED) else 0] = 1
    gram = patches.T @ patches
    return gram.double().reshape(*single, *single)


def _patches(layer: Any, x: Tensor) -> Tensor:
    """Return what each output pixel is a linear map of, [N * pixels, in * k * k]."""
    transposed = isinstance(layer, TRANSPOSED)  # a convolution with the kernel turned round, on a padded map
    sides = layer.kernel_size
    margins = [side - 1 for side in sides] if transposed else layer.padding
    x = pad(x, [margin for margin in reversed(margins) for _ in range(2)])
    for axis, (side, step) in enumerate(zip(sides, layer.stride, strict=True)):
        x = x.unfold(2 + axis, side, step)
    dims = len(sides)
    if transposed:
        x = x.flip(tuple(range(2 + dims, 2 + 2 * dims)))
    return x.movedim(1, 1 + dims).flatten(0, dims).flatten(1)


KINDS: dict[str, Callable[[ContinualNet, nn.Module, FeatureExtractor, Sequence[Item]], dict[str, Tensor]]] = {
    "samples": count_samples,
    "fisher": auxiliary_fisher,
    "gram": gram_matrices,
    "auxiliary": copy_auxiliary,
}
