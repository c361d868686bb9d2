"""MONAI transforms and readers that MONAI lacks."""

from scripts.transforms.npz import npz_array
from scripts.transforms.reader import RGBReader, read_rgb

__all__ = ["RGBReader", "npz_array", "read_rgb"]
