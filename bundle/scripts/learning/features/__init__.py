"""Features of images: computed once, and sums over them."""

from scripts.learning.features.candidates import CandidateSums
from scripts.learning.features.dataset import FeatureDataset, StageFeatures
from scripts.learning.features.drawn import DrawnFeatures
from scripts.learning.features.extractor import FeatureExtractor
from scripts.learning.features.joint import JointRidge
from scripts.learning.features.stem_maps import StemMapDataset, StemMaps
from scripts.learning.features.sums import FeatureSums

__all__ = [
    "CandidateSums",
    "DrawnFeatures",
    "FeatureDataset",
    "FeatureExtractor",
    "FeatureSums",
    "JointRidge",
    "StageFeatures",
    "StemMapDataset",
    "StemMaps",
]
