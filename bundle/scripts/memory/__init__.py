"""Memory: which images of old tasks are kept, and how, or sums over their features."""

from scripts.memory.exemplars import CopyStore, ExemplarMemory, PathStore
from scripts.memory.feature_dataset import FeatureDataset, StageFeatures
from scripts.memory.feature_sums import FeatureSums
from scripts.memory.features import FeatureExtractor
from scripts.memory.held_out import divide
from scripts.memory.reservoir import ReservoirMemory
from scripts.memory.selection import SELECTIONS, select
from scripts.memory.stem_maps import StemMapDataset, StemMaps

__all__ = [
    "SELECTIONS",
    "CopyStore",
    "ExemplarMemory",
    "FeatureDataset",
    "FeatureExtractor",
    "FeatureSums",
    "PathStore",
    "ReservoirMemory",
    "StageFeatures",
    "StemMapDataset",
    "StemMaps",
    "divide",
    "select",
]
