"""From an image to what a network sees of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai.transforms.compose import Compose

from scripts.transforms.colour import make_colour
from scripts.transforms.pixels import LoadPixelsd, NormalizePixelsd, ResizePixelsd
from scripts.transforms.reader import ReferenceReader


def preprocessing(image: Mapping[str, Any], reader: ReferenceReader) -> Compose:
    """Return the fixed transforms of ``{"image": reference}``, to a tensor ``[C, H, W]`` or ``[C, D, H, W]``.

    Args:
        image: how the network sees an image: ``size`` (sides, in pixels), ``mean`` and ``std`` of each channel (of
            values 0..1), and ``colour_transform`` (see :func:`scripts.transforms.make_colour`; ``None``: none).
        reader: reads the image.
    """
    colour = image["colour_transform"]
    return Compose(
        [
            LoadPixelsd("image", reader),
            *([] if colour is None else [make_colour("image", colour)]),
            ResizePixelsd("image", image["size"]),
            NormalizePixelsd("image", image["mean"], image["std"]),
        ]
    )
