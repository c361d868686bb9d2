"""From an image to what a network sees of it, as a network's :class:`ImageSpec` says."""

from __future__ import annotations

from typing import Any

from monai.transforms.compose import Compose

from scripts.imaging.image_spec import ImageSpec
from scripts.imaging.transforms.colour import make_colour
from scripts.imaging.transforms.pixels import LoadPixelsd, NormalizePixelsd, ResizePixelsd
from scripts.imaging.transforms.reader import ReferenceReader, RGBReader, VolumeReader


def make_reader(spec: ImageSpec) -> ReferenceReader:
    """Return what reads images or, where they have three dimensions, volumes."""
    return RGBReader() if spec.dimensions == 2 else VolumeReader()


def preprocessing(spec: ImageSpec) -> Compose:
    """Return the fixed transforms of ``{"image": reference}``, to a tensor of ``spec.shape``.

    Without a colour transform the result is, to the bit, that of :func:`scripts.imaging.pixels.network_input`.
    """
    return Compose(
        [
            LoadPixelsd("image", make_reader(spec)),
            *([] if spec.colour is None else [make_colour("image", spec.colour)]),
            ResizePixelsd("image", spec.size),
            NormalizePixelsd("image", spec.mean, spec.std),
        ]
    )


def monai_preprocessing(spec: ImageSpec) -> dict[str, Any]:
    """Return :func:`preprocessing` as a config of MONAI's own transforms, for who has an exported network alone.

    Only a colour transform needs the bundle's code.
    """
    volumes = spec.dimensions == 3
    converted = {
        "_target_": "PILReader",
        "converter": "$lambda image: image.convert('RGBA').convert('RGB')",
        "reverse_indexing": False,
    }
    load = {"reader": {"_target_": "NumpyReader"} if volumes else converted, "image_only": True}
    channel = "no_channel" if volumes else -1
    mode = "trilinear" if volumes else "bilinear"
    steps: list[tuple[str, dict[str, Any]]] = [
        ("LoadImaged", load),
        ("EnsureChannelFirstd", {"channel_dim": channel}),
        ("Resized", {"spatial_size": list(spec.shape[1:]), "mode": mode, "anti_aliasing": True}),
        ("ScaleIntensityRanged", {"a_min": 0, "a_max": 255, "b_min": 0, "b_max": 1}),
        ("NormalizeIntensityd", {"subtrahend": list(spec.mean), "divisor": list(spec.std), "channel_wise": True}),
    ]
    if spec.colour is not None:
        steps.insert(2, ("scripts.imaging.transforms.make_colour", {"description": dict(spec.colour)}))
    return {"_target_": "Compose", "transforms": [{"_target_": name, "keys": "image", **own} for name, own in steps]}
