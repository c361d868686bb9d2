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
from scripts.transforms.reader import RGBReader, read_rgb, stored_mode
from scripts.transforms.rgb import LoadRGBd, NormalizeRGBd, ResizeRGBd

__all__ = [
    "COLOURS",
    "Clahed",
    "LoadRGBd",
    "NormalizeRGBd",
    "RGBReader",
    "RandStainJitterd",
    "ResizeRGBd",
    "ShadesOfGreyd",
    "StainNormalisationd",
    "describe_colour",
    "make_colour",
    "npz_array",
    "npz_names",
    "read_rgb",
    "stored_mode",
]
