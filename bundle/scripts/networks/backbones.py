"""Backbones as a chain of named blocks, with the sites before which an adapter can stand."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights

from scripts.errors import UserError
from scripts.networks.signed import drop_last_activation
from scripts.networks.volumes import DEPTHS, MEAN, STD, volume_resnet

# Source: DynaMMo (arXiv 2404.14099); the names are torchvision's (of the 3-D ones MONAI's), an adapter stands before
# the named block.
SITES: dict[str, tuple[str, ...]] = {
    "resnet18": ("layer1", "layer2", "layer3", "layer4"),
    "resnet34": ("layer1", "layer2", "layer3", "layer4"),
    "resnet50": ("layer1", "layer2", "layer3", "layer4"),
    "mobilenet_v2": ("features.3", "features.5", "features.12", "features.15"),
    "efficientnet_b0": ("features.4", "features.5", "features.6", "features.8"),
    "resnet10_3d": ("layer1", "layer2", "layer3", "layer4"),
    "resnet18_3d": ("layer1", "layer2", "layer3", "layer4"),
}
MINIMUM_MAP = 3  # an adapter's unpadded convolution needs at least this side
CLASSIFIERS = ("fc", "classifier")


def check_backbone(name: str) -> None:
    """Refuse a backbone without known sites.

    Raises:
        UserError: when ``name`` is not in :data:`SITES`; the message lists what there is.
    """
    if name not in SITES:
        raise UserError(f"unknown backbone '{name}': choose one of {', '.join(SITES)} (key 'backbone')")


def spatial_dims(name: str) -> int:
    """Return 3 for a backbone of volumes, 2 for one of images."""
    check_backbone(name)
    return 3 if name in DEPTHS else 2


def normalisation(name: str) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation for pixels in 0..1.

    Of red, green and blue as torchvision's weights were trained with; one value each for backbones of volumes.
    """
    if spatial_dims(name) == 3:
        return list(MEAN), list(STD)
    preset = get_model_weights(name).DEFAULT.transforms()
    return list(preset.mean), list(preset.std)


def named_blocks(model: nn.Module) -> list[tuple[str, Any]]:
    """List the blocks of a classifier in the order of its forward pass, without pooling and classifier."""
    blocks: list[tuple[str, Any]] = []
    for name, module in model.named_children():
        if name == "features":
            blocks += [(f"features.{index}", child) for index, child in module.named_children()]
        elif name != "avgpool" and name not in CLASSIFIERS:
            blocks.append((name, module))
    return blocks


def segments(
    name: str, sites: Sequence[str] | None = None, signed: bool = False
) -> tuple[nn.Sequential, dict[str, nn.Sequential]]:
    """Cut a new, untrained backbone before each of its sites.

    Args:
        name: a key of :data:`SITES`.
        sites: names of the blocks an adapter stands before, in any order; ``None``: those of :data:`SITES`.
        signed: leave the last activation out.

    Returns:
        What stands before the first site, and a segment a site (from it up to the next one).

    Raises:
        UserError: for an unknown backbone or site.
    """
    blocks = named_blocks(volume_resnet(name) if spatial_dims(name) == 3 else get_model(name, weights=None))
    chosen = SITES[name] if sites is None else tuple(sites)
    known = [block for block, _ in blocks[1:]]
    for site in chosen:
        if site not in known:
            raise UserError(
                f"backbone {name} has no site '{site}': choose among {', '.join(known)} (key 'network_def#sites')"
            )
    if signed:
        drop_last_activation(blocks[-1][1])
    stem = nn.Sequential()
    parts: dict[str, nn.Sequential] = {}
    current = stem
    for block, module in blocks:
        if block in chosen:
            current = parts[block] = nn.Sequential()
        current.add_module(block.replace(".", "_"), module)
    return stem, parts


def black_image(network: nn.Module, side: int) -> Tensor:
    """Return zeros of the shape of one image: [1, 3, side, side], or [1, 1, side, side, side] for volumes.

    Args:
        network: one whose first parameter is its first convolution's weight [out, in, kernel, kernel(, kernel)].
        side: height and width, and depth of a volume.
    """
    weight = next(network.parameters())
    return weight.new_zeros(1, weight.shape[1], *[side] * (weight.dim() - 2))


def load_weights(name: str, weights: str, sha256: str | None = None) -> dict[str, Tensor]:
    """Return the state dict of pretrained weights, without the classifier.

    Args:
        name: the backbone.
        weights: a file (``.pth``, ``.pt``, ``.th``: loaded with ``weights_only``; ``.safetensors``), or the name of
            torchvision weights (``DEFAULT``, ``IMAGENET1K_V1``, ...), which torchvision downloads and checks. For
            backbones of volumes only a file, MedicalNet's for one.
        sha256: the expected digest of the file, or its first digits; ``None``: not checked.

    Raises:
        UserError: for a missing file, an unknown name, no network, a wrong digest or a file that is no state dict.
    """
    state = _read(Path(weights), sha256) if _is_file_name(weights) else _download(name, weights)
    state = {key.removeprefix("module."): value for key, value in state.items()}
    return {key: value for key, value in state.items() if key.split(".")[0] not in CLASSIFIERS}


def load_into(name: str, stem: nn.Module, parts: dict[str, nn.Sequential], state: dict[str, Tensor]) -> None:
    """Load a ``state`` (without classifier) into the segments of :func:`segments`.

    Raises:
        UserError: when an entry is missing, left over or of another shape; the message names the first one.
    """
    targets: dict[str, Tensor] = {}
    for segment in (stem, *parts.values()):
        for block, module in segment.named_children():
            prefix = re.sub(r"^features_", "features.", block)
            targets.update({f"{prefix}.{key}": value for key, value in module.state_dict().items()})
    # torchvision's older files do without BatchNorm's counter of batches, which torch then leaves as it is
    needed = {key for key in targets if not key.endswith(".num_batches_tracked")}
    missing, extra = sorted(needed - state.keys()), sorted(state.keys() - targets.keys())
    if missing or extra:
        what = f"'{missing[0]}' is missing" if missing else f"'{extra[0]}' is left over"
        raise UserError(
            f"the weights do not fit backbone {name}: {what} ({len(missing)} missing, {len(extra)} left over)"
        )
    for key in sorted(state):
        target = targets[key]
        if target.shape != state[key].shape:
            raise UserError(
                f"the weights do not fit backbone {name}: '{key}' has shape {tuple(state[key].shape)}, "
                f"expected {tuple(target.shape)}"
            )
        target.copy_(state[key])


def _is_file_name(weights: str) -> bool:
    return "/" in weights or "." in weights


def _read(path: Path, sha256: str | None) -> dict[str, Tensor]:
    if not path.is_file():
        raise UserError(f"no weights file at {path}: give an existing file or a torchvision name (key 'weights')")
    if sha256 is not None:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
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
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"weights {path} hold no state dict of tensors")
    return state


def _download(name: str, weights: str) -> dict[str, Tensor]:
    if spatial_dims(name) == 3:
        raise UserError(
            f"backbone {name} has no weights called '{weights}': give the path of a file, such as MedicalNet's "
            f"./resnet_{DEPTHS[name]}_23dataset.pth (key 'weights')"
        )
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
