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
from scripts.networks.continual import MERGED, ContinualNet
from scripts.networks.heads import HEADS, ConcatenatedHead, NearestMeanHead, OthersHead, UnifiedHead, make_head
from scripts.networks.merging import STRATEGIES, check_strategy, merge
from scripts.networks.outputs import Outputs

__all__ = [
    "ADAPTERS",
    "HEADS",
    "MERGED",
    "PLAIN",
    "SITES",
    "STRATEGIES",
    "WHOLE",
    "AdaptedBackbone",
    "AdaptedBlock",
    "Classifier",
    "ConcatenatedHead",
    "ContinualNet",
    "ConvAdapter",
    "ExpandableBackbone",
    "NearestMeanHead",
    "OthersHead",
    "Outputs",
    "UnifiedHead",
    "check_strategy",
    "class_names",
    "classifier_from",
    "make_adapter",
    "make_backbone",
    "make_head",
    "merge",
    "normalisation",
    "read_description",
    "spatial_dims",
]
