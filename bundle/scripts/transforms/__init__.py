"""MONAI transforms and readers that MONAI lacks."""

from scripts.transforms.reader import RGBReader, npz_array, read_rgb, stored_mode

__all__ = ["RGBReader", "npz_array", "read_rgb", "stored_mode"]
