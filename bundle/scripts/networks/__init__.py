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
from scripts.networks.continual import MERGED, ContinualNet
from scripts.networks.heads import HEADS, CosineHead, NearestMeanHead, OthersHead, ProxyHead, UnifiedHead, find_head
from scripts.networks.merging import STRATEGIES, check_strategy, merge
from scripts.networks.outputs import Outputs

__all__ = [
    "ADAPTERS",
    "HEADS",
    "MERGED",
    "PLAIN",
    "SITES",
    "STRATEGIES",
    "AdaptedBackbone",
    "AdaptedBlock",
    "Classifier",
    "ContinualNet",
    "ConvAdapter",
    "CosineHead",
    "NearestMeanHead",
    "OthersHead",
    "Outputs",
    "ProxyHead",
    "UnifiedHead",
    "check_strategy",
    "class_names",
    "classifier_from",
    "find_head",
    "make_adapter",
    "merge",
    "normalisation",
    "read_description",
    "spatial_dims",
]
