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
            views += [tuple(sorted(flipped_axes(transform).symmetric_difference(view))) for view in views]
    return list(dict.fromkeys(views))


def flipped_axes(flip: RandFlipd) -> set[int]:
    """Return the axes of a batch that a flip turns round; none where it does not name them."""
    axes = flip.flipper.spatial_axis
    listed = [axes] if isinstance(axes, int) else axes or []
    return {axis if axis < 0 else SPATIAL + axis for axis in listed}


class FlipDraw:
    """Draws the view that flips would have given an image, from the same random numbers.

    Args:
        flips: the random transforms, in order, each with axes.
    """

    def __init__(self, flips: Sequence[RandFlipd]) -> None:
        self.flips = [(flip, flipped_axes(flip)) for flip in flips]
        self.views = flip_views(flips)
        self._numbers = {view: number for number, view in enumerate(self.views)}

    def __call__(self) -> int:
        """Draw: return a position in ``views``."""
        view: set[int] = set()
        for flip, axes in self.flips:
            flip.randomize(None)
            if flip._do_transform:
                view ^= axes
        return self._numbers[tuple(sorted(view))]
