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
from scripts.transforms.scans import ScanReader, file_of, is_scan, make_selection, read_scan

__all__ = [
    "COLOURS",
    "Clahed",
    "LoadRGBd",
    "NormalizeRGBd",
    "RGBReader",
    "RandStainJitterd",
    "ResizeRGBd",
    "ScanReader",
    "ShadesOfGreyd",
    "StainNormalisationd",
    "describe_colour",
    "file_of",
    "is_scan",
    "make_colour",
    "make_selection",
    "npz_array",
    "npz_names",
    "read_rgb",
    "read_scan",
    "stored_mode",
]
