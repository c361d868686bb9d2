"""Networks: backbones with adapter sites, adapters, merging, heads, and the growing network."""

from scripts.networks.adapters import ADAPTERS, AdaptedBlock, ConvAdapter, make_adapter
from scripts.networks.backbones import SITES, normalisation, spatial_dims
from scripts.networks.classifier import (
    PLAIN,
    AdaptedBackbone,
    Classifier,
    class_names,
    classifier_from,
    read_description,
)
from scripts.networks.continual import ADAPTER_STARTS, MERGED, START, ContinualNet
from scripts.networks.heads import HEADS, NearestMeanHead, OthersHead, UnifiedHead, make_head
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
    "AdaptedBackbone",
    "AdaptedBlock",
    "Classifier",
    "ContinualNet",
    "ConvAdapter",
    "MergingOptions",
    "NearestMeanHead",
    "OthersHead",
    "Outputs",
    "UnifiedHead",
    "check_strategy",
    "class_names",
    "classifier_from",
    "make_adapter",
    "make_head",
    "merge",
    "needed_statistics",
    "normalisation",
    "read_description",
    "spatial_dims",
]
