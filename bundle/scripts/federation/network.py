"""Which features sums are of: everything below the head, and how an image is seen, as hashes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from scripts.imaging.image_spec import ImageSpec
from scripts.model.networks import MERGED, ContinualNet, make_adapter
from scripts.utils.errors import UserError

SOLVED = ("head.linear.", "head.means", "head.whitening")
"""What of a network is solved from sums."""
UNREAD = "num_batches_tracked"
NETWORK = ("backbone", "head", "adapter", "sites", "levels", "image_size", "seed")


def digest_of(state: Iterable[tuple[str, Tensor]]) -> str:
    """Return a hash of tensors by name; counters, which no pass reads, are left out."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state, key=lambda pair: pair[0]):
        if not name.endswith(UNREAD):
            head = f"{name} {tensor.dtype} {list(tensor.shape)} "
            digest.update(head.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def below_head(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what makes features of a trained network's state: all but what is solved."""
    return {name: tensor for name, tensor in state.items() if not name.startswith(SOLVED)}


def features_digest(state: Mapping[str, Tensor]) -> str:
    """Return the hash of what makes features in a trained network's state, its adapters folded or merged."""
    return digest_of(below_head(state).items())


def base_digest(network: ContinualNet) -> str:
    """Return the hash of the backbone that adapters are added to."""
    parts = enumerate(network.backbone.base())
    return digest_of((f"{at}.{name}", value) for at, part in parts for name, value in part.state_dict().items())


def network_record(network: ContinualNet, seed: int) -> dict[str, Any]:
    """Return what it takes to build the network anew, weights apart.

    Args:
        network: the network.
        seed: of a random projection.

    Raises:
        UserError: where part of its adapters is never merged, so that sites would keep one of their own.
    """
    adapter = network.backbone.adapter
    if adapter is not None and adapter.shares:
        raise UserError(
            f"adapters '{adapter.kind}' have a part that is never merged, so that each site would have features of its "
            "own: learn without part 'shared' (key 'parts')"
        )
    described = {key: value for key, value in network.description().items() if key in NETWORK}
    own = {"adapter": None if adapter is None else adapter.record(), "image_size": network.image_size, "seed": seed}
    return {**described, **own}


def adapters_of(network: ContinualNet) -> dict[str, Tensor]:
    """Return what a way of merging reads of the merged adapters; nothing where the backbone is as it was."""
    if network.backbone.adapter is None or MERGED not in network.backbone.added():
        return {}
    return {name: value.cpu() for name, value in network.mergeable_state(MERGED).items()}


def take_adapters(network: ContinualNet, adapters: Mapping[str, Tensor]) -> None:
    """Let a network pass through merged adapters.

    Raises:
        UserError: when they do not fit.
    """
    network.backbone.add_branch(MERGED)
    network.backbone.branches = [MERGED]
    try:
        network.branch(MERGED).load_state_dict(dict(adapters))
    except RuntimeError as error:
        raise UserError(
            "these adapters are of another network: take those that this federation has averaged"
        ) from error


def first_network(
    record: Mapping[str, Any], weights: str | None, adapters: Mapping[str, Tensor] | None = None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Build a network that has learnt no class yet.

    Args:
        record: see :func:`network_record`.
        weights: the pretrained weights that all sites started from, a file or a name; ``None``: untrained.
        adapters: merged; ``None``: none.

    Returns:
        What ``network.json`` says of it, classes apart, and the state below its head.

    Raises:
        UserError: when there is no such network, or the weights are not its own.
    """
    network = ContinualNet(
        backbone=record["backbone"],
        head=record["head"],
        adapter=make_adapter(record["adapter"]) if adapters else None,
        weights=weights,
        sites=record["sites"],
        levels=record["levels"],
        image_size=record["image_size"],
        seed=record["seed"],
    )
    if adapters:
        take_adapters(network, adapters)
    return network.description(), below_head(network.merge_and_unload([]).state_dict())


def image_record(image: ImageSpec) -> dict[str, Any]:
    """Return how images are seen, without what says which files were read."""
    return {**image.record(), "mean": list(image.mean), "std": list(image.std)}
