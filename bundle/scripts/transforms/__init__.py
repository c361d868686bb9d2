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
from scripts.transforms.reader import RGBReader, npz_array, read_rgb, stored_mode

__all__ = [
    "COLOURS",
    "Clahed",
    "RGBReader",
    "RandStainJitterd",
    "ShadesOfGreyd",
    "StainNormalisationd",
    "describe_colour",
    "make_colour",
    "npz_array",
    "read_rgb",
    "stored_mode",
]
