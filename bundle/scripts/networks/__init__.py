"""Networks: backbones with adapter sites, adapters, merging, heads, and the growing network."""

from scripts.networks.adapters import ADAPTERS, AdaptedBlock, ConvAdapter, make_adapter
from scripts.networks.backbones import SITES, normalisation, spatial_dims
from scripts.networks.classifier import (
    PLAIN,
    WHOLE,
    AdaptedBackbone,
    Classifier,
    ExpandableBackbone,
    class_names,
    classifier_from,
    make_backbone,
    read_description,
)
from scripts.networks.closed_form import drift_map, shrinkage_errors
from scripts.networks.continual import ADAPTER_STARTS, MERGED, START, ContinualNet, FeatureReader, StemMapReader
from scripts.networks.heads import (
    HEADS,
    ClassMeansHead,
    ConcatenatedHead,
    CosineHead,
    CovariancesHead,
    LevelsHead,
    NearestMeanHead,
    OthersHead,
    ProxyHead,
    RandomProjectionHead,
    UnifiedHead,
    find_head,
)
from scripts.networks.merging import BATCHNORMS, STRATEGIES, MergingOptions, check_strategy, merge, needed_statistics
from scripts.networks.outputs import Outputs

__all__ = [
    "ADAPTERS",
    "ADAPTER_STARTS",
    "BATCHNORMS",
    "HEADS",
    "MERGED",
    "PLAIN",
    "SITES",
    "START",
    "STRATEGIES",
    "WHOLE",
    "AdaptedBackbone",
    "AdaptedBlock",
    "ClassMeansHead",
    "Classifier",
    "ConcatenatedHead",
    "ContinualNet",
    "ConvAdapter",
    "CosineHead",
    "CovariancesHead",
    "ExpandableBackbone",
    "FeatureReader",
    "LevelsHead",
    "MergingOptions",
    "NearestMeanHead",
    "OthersHead",
    "Outputs",
    "ProxyHead",
    "RandomProjectionHead",
    "StemMapReader",
    "UnifiedHead",
    "check_strategy",
    "class_names",
    "classifier_from",
    "drift_map",
    "find_head",
    "make_adapter",
    "make_backbone",
    "merge",
    "needed_statistics",
    "normalisation",
    "read_description",
    "shrinkage_errors",
    "spatial_dims",
]
