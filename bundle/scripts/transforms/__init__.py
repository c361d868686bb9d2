"""MONAI transforms and readers that MONAI lacks."""

from scripts.transforms.npz import npz_array
from scripts.transforms.reader import RGBReader, read_rgb
from scripts.transforms.rgb import LoadRGBd, NormalizeRGBd

__all__ = ["LoadRGBd", "NormalizeRGBd", "RGBReader", "npz_array", "read_rgb"]
