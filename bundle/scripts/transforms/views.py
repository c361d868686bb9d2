"""The views of an image that its augmentation makes, where they are finite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from monai.transforms import RandFlipd

SPATIAL = 2  # the first spatial axis of a batch


def flip_views(transforms: Sequence[Any]) -> list[tuple[int, ...]]:
    """Return, for each view, the axes of a batch [B, C, ...] that it flips; the first view flips none.

    Args:
        transforms: the random transforms of training. `RandFlipd` makes two views of each; what others do (crops,
            jitter) has no end, and is left out.
    """
    views: list[tuple[int, ...]] = [()]
    for transform in transforms:
        if isinstance(transform, RandFlipd):
            axes = transform.flipper.spatial_axis
            listed = [axes] if isinstance(axes, int) else axes or []
            flipped = {axis if axis < 0 else SPATIAL + axis for axis in listed}
            views += [tuple(sorted(flipped.symmetric_difference(view))) for view in views]
    return list(dict.fromkeys(views))
