"""Features of images: computed once, and sums over them."""

from scripts.learning.features.dataset import FeatureDataset, StageFeatures
from scripts.learning.features.extractor import FeatureExtractor
from scripts.learning.features.stem_maps import StemMapDataset, StemMaps
from scripts.learning.features.sums import FeatureSums

__all__ = [
    "FeatureDataset",
    "FeatureExtractor",
    "FeatureSums",
    "StageFeatures",
    "StemMapDataset",
    "StemMaps",
]
