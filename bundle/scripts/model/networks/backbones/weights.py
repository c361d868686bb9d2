"""Pretrained weights: where they come from, and how they get into a chain of blocks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import get_model_weights

from scripts.utils.errors import UserError
from scripts.utils.sums import file_sha256

CLASSIFIERS = ("fc", "classifier", "head", "head_dist", "heads")
"""What the layers are called, in a file, that come after the features."""


def is_file_name(weights: str) -> bool:
    """Say whether pretrained weights are a file, not a name."""
    return "/" in weights or "." in weights


def read_weights(weights: str, sha256: str | None = None) -> dict[str, Tensor]:
    """Return the state dict in a file.

    Args:
        weights: ``.pth``, ``.pt``, ``.th`` (loaded with ``weights_only``), or ``.safetensors``.
        sha256: the expected digest of the file, or its first digits; ``None``: not checked.

    Raises:
        UserError: for a missing file, a wrong digest or a file that is no state dict.
    """
    return {key.removeprefix("module."): value for key, value in _read(Path(weights), sha256).items()}


def download_torchvision(name: str, weights: str) -> dict[str, Tensor]:
    """Return torchvision's weights (``DEFAULT``, ``IMAGENET1K_V1``, ...), which it downloads and checks.

    Raises:
        UserError: for an unknown name, and without network.
    """
    choices = get_model_weights(name)
    if weights not in choices.__members__:
        raise UserError(
            f"unknown weights '{weights}' for {name}: give a path or one of "
            f"{', '.join(choices.__members__)} (key 'weights')"
        )
    entry = choices[weights]
    try:
        return dict(entry.get_state_dict(check_hash=True, progress=True))
    except OSError as error:  # URLError is one
        raise UserError(
            f"cannot download {entry.url} ({error}): fetch it on another machine and give its path "
            "(--weights FILE), or copy it into torch's hub folder"
        ) from error


def torchvision_licence(name: str, weights: str) -> str | None:
    """Return the licence that torchvision says weights have; ``None``: it says none."""
    choices = get_model_weights(name).__members__
    return choices[weights].meta.get("license") if weights in choices else None


def load_into(network: nn.Module, name: str, keys: Mapping[str, str], state: Mapping[str, Tensor]) -> None:
    """Load pretrained weights; those of a classifier are left out.

    Args:
        network: takes them.
        name: of the backbone, for messages.
        keys: what the file calls each entry of the network that it fills.
        state: what the file has.

    Raises:
        UserError: when an entry is missing, left over or of another shape; the message names the first one.
    """
    own = network.state_dict()
    targets = {file_key: own[key] for key, file_key in keys.items()}
    state = {key: value for key, value in state.items() if key in targets or key.split(".")[0] not in CLASSIFIERS}
    # torchvision's older files do without BatchNorm's counter of batches, which torch then leaves as it is
    needed = {key for key in targets if not key.endswith(".num_batches_tracked")}
    missing, extra = sorted(needed - state.keys()), sorted(state.keys() - targets.keys())
    if missing or extra:
        what = f"'{missing[0]}' is missing" if missing else f"'{extra[0]}' is left over"
        raise UserError(
            f"the weights do not fit backbone {name}: {what} ({len(missing)} missing, {len(extra)} left over): "
            "give weights of this backbone, or the backbone of these weights (keys 'weights', 'backbone')"
        )
    for key in sorted(state):
        target = targets[key]
        if target.shape != state[key].shape:
            raise UserError(
                f"the weights do not fit backbone {name}: '{key}' has shape {tuple(state[key].shape)}, "
                f"expected {tuple(target.shape)}: give weights of this backbone (key 'weights')"
            )
        target.copy_(state[key])


def _read(path: Path, sha256: str | None) -> dict[str, Tensor]:
    if not path.is_file():
        raise UserError(f"no weights file at {path}: give an existing file or a torchvision name (key 'weights')")
    if sha256 is not None:
        digest = file_sha256(path)
        if not digest.startswith(sha256.lower()):
            raise UserError(f"weights {path} have sha256 {digest}, expected {sha256}: fetch the file again")
    try:
        state: Any = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, weights_only=True, map_location="cpu")
        )
    except Exception as error:  # torch and safetensors raise a dozen kinds for a file that is not theirs
        raise UserError(
            f"weights {path} cannot be read as a plain state dict ({type(error).__name__}): give a .pth, .pt or "
            ".safetensors file that holds only tensors (key 'weights')"
        ) from error
    for nested in ("state_dict", "model"):
        state = state.get(nested, state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"weights {path} hold no state dict of tensors")
    return state
