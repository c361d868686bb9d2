"""MONAI transforms and readers that MONAI lacks."""

from scripts.transforms.reader import RGBReader, npz_array, read_rgb
from scripts.transforms.scans import ScanReader, file_of, is_scan, make_selection, read_scan

__all__ = ["RGBReader", "ScanReader", "file_of", "is_scan", "make_selection", "npz_array", "read_rgb", "read_scan"]
