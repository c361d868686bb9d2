"""MONAI transforms and readers that MONAI lacks."""

from scripts.transforms.colour import (
    COLOURS,
    Clahed,
    RandStainJitterd,
    ShadesOfGreyd,
    StainNormalisationd,
    describe_colour,
    make_colour,
)
from scripts.transforms.npz import npz_array, npz_names
from scripts.transforms.pixels import LoadPixelsd, NormalizePixelsd, ResizePixelsd
from scripts.transforms.reader import (
    ReferenceReader,
    RGBReader,
    VolumeReader,
    is_volume,
    read_picture,
    read_rgb,
    read_volume,
    stored_mode,
)

__all__ = [
    "COLOURS",
    "Clahed",
    "LoadPixelsd",
    "NormalizePixelsd",
    "RGBReader",
    "RandStainJitterd",
    "ReferenceReader",
    "ResizePixelsd",
    "ShadesOfGreyd",
    "StainNormalisationd",
    "VolumeReader",
    "describe_colour",
    "is_volume",
    "make_colour",
    "npz_array",
    "npz_names",
    "read_picture",
    "read_rgb",
    "read_volume",
    "stored_mode",
]
