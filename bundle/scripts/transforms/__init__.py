"""MONAI transforms and readers that MONAI lacks."""

from scripts.transforms.reader import (
    ReferenceReader,
    RGBReader,
    VolumeReader,
    holds_volumes,
    is_volume,
    npz_array,
    read_rgb,
    read_volume,
)

__all__ = [
    "RGBReader",
    "ReferenceReader",
    "VolumeReader",
    "holds_volumes",
    "is_volume",
    "npz_array",
    "read_rgb",
    "read_volume",
]
