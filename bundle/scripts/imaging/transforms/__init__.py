"""MONAI transforms and readers that MONAI lacks."""

from scripts.imaging.decoding.scans import is_scan, make_selection, read_scan
from scripts.imaging.transforms.colour import (
    COLOURS,
    Clahed,
    RandStainJitterd,
    ShadesOfGreyd,
    StainNormalisationd,
    make_colour,
)
from scripts.imaging.transforms.npz import npz_array, npz_names
from scripts.imaging.transforms.pixels import LoadPixelsd, NormalizePixelsd, ResizePixelsd
from scripts.imaging.transforms.preprocessing import make_reader, monai_preprocessing, preprocessing
from scripts.imaging.transforms.random_views import RandomViews
from scripts.imaging.transforms.reader import (
    ReferenceReader,
    RGBReader,
    VolumeReader,
    is_volume,
    read_picture,
    read_rgb,
    read_volume,
    stored_mode,
)
from scripts.imaging.transforms.scans import ScanReader, file_of
from scripts.imaging.transforms.views import flip_views, orientation_views, seen_as

__all__ = [
    "COLOURS",
    "Clahed",
    "LoadPixelsd",
    "NormalizePixelsd",
    "RGBReader",
    "RandStainJitterd",
    "RandomViews",
    "ReferenceReader",
    "ResizePixelsd",
    "ScanReader",
    "ShadesOfGreyd",
    "StainNormalisationd",
    "VolumeReader",
    "file_of",
    "flip_views",
    "is_scan",
    "is_volume",
    "make_colour",
    "make_reader",
    "make_selection",
    "monai_preprocessing",
    "npz_array",
    "npz_names",
    "orientation_views",
    "preprocessing",
    "read_picture",
    "read_rgb",
    "read_scan",
    "read_volume",
    "seen_as",
    "stored_mode",
]
