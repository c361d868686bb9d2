"""The views of an image: those that its augmentation makes, where they are finite, and its orientations."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

from monai.transforms import RandFlipd
from torch import Tensor

SPATIAL = 2  # the first spatial axis of a batch
TRANSPOSED = 0  # in a view: height and width change places; the axis of the batch itself is never flipped


def seen_as(images: Tensor, view: Sequence[int]) -> Tensor:
    """Return a view of square images [B, C, ..., H, W]: transposed where it says so, then flipped along its axes."""
    turned = images.transpose(-2, -1) if TRANSPOSED in view else images
    return turned.flip([axis for axis in view if axis != TRANSPOSED])


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


def orientation_views(transforms: Sequence[Any], dimensions: int) -> list[tuple[int, ...]]:
    """Return the views that the four rotations of the image plane, mirrored or not, add to :func:`flip_views`.

    Args:
        transforms: as of :func:`flip_views`.
        dimensions: 2 for images; 3 for volumes, whose plane has the last two axes.
    """
    axes = SPATIAL + dimensions
    flips = flip_views(transforms)
    seen = [tuple(sorted(axis % axes for axis in view)) for view in flips]
    plane = [(), (axes - 1,), (axes - 2,), (axes - 2, axes - 1)]
    views = {
        (*transposed, *sorted({*view} ^ {*flip})): None
        for transposed, flip, view in product([(), (TRANSPOSED,)], plane, seen)
    }
    return [view for view in views if view not in seen]


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
