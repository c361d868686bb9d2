"""Networks: backbones, adapters, merging and heads, a registry and a file a family each; the network that grows."""

from scripts.model.networks.adapted import EVERY, PLAIN, PUBLISHED, AdaptedBackbone
from scripts.model.networks.adapter_statistics import AdapterStatistics
from scripts.model.networks.adapters import (
    ADAPTERS,
    L2P,
    MERGED,
    AttendedConvolutions,
    Bottleneck,
    CodaPrompt,
    Convolutions,
    DualPrompt,
    LowRank,
    SharedAdapters,
    make_adapter,
)
from scripts.model.networks.backbones import BACKBONES, find_backbone, image_spec, weights_licence
from scripts.model.networks.classifier import Classifier, classifier_from
from scripts.model.networks.closed_form import drift_map, shrinkage_errors
from scripts.model.networks.continual import (
    ADAPTER_STARTS,
    START,
    ContinualNet,
    FeatureReader,
    NetworkState,
    StemMapReader,
)
from scripts.model.networks.expandable import ExpandableBackbone, WholeBackbones, make_backbone
from scripts.model.networks.heads import HEADS, Ability, Head
from scripts.model.networks.merging import (
    BATCHNORMS,
    ROWS,
    Average,
    ByFisher,
    BySamples,
    Dare,
    MagMax,
    Merging,
    RegMean,
    RunningMean,
    Slerp,
    Ties,
    merge,
)
from scripts.model.networks.outputs import Outputs
from scripts.model.networks.projections import PredictedProjection, Projection
from scripts.model.networks.prompted import PromptedBackbone
from scripts.model.networks.task_groups import TaskGroups

__all__ = [
    "ADAPTERS",
    "ADAPTER_STARTS",
    "BACKBONES",
    "BATCHNORMS",
    "EVERY",
    "HEADS",
    "MERGED",
    "PLAIN",
    "PUBLISHED",
    "ROWS",
    "START",
    "Ability",
    "AdaptedBackbone",
    "AdapterStatistics",
    "AttendedConvolutions",
    "Average",
    "Bottleneck",
    "ByFisher",
    "BySamples",
    "Classifier",
    "CodaPrompt",
    "ContinualNet",
    "Convolutions",
    "Dare",
    "DualPrompt",
    "ExpandableBackbone",
    "FeatureReader",
    "Head",
    "L2P",
    "LowRank",
    "MagMax",
    "Merging",
    "NetworkState",
    "Outputs",
    "PredictedProjection",
    "Projection",
    "PromptedBackbone",
    "RegMean",
    "RunningMean",
    "SharedAdapters",
    "Slerp",
    "StemMapReader",
    "TaskGroups",
    "Ties",
    "WholeBackbones",
    "classifier_from",
    "drift_map",
    "find_backbone",
    "image_spec",
    "make_adapter",
    "make_backbone",
    "merge",
    "shrinkage_errors",
    "weights_licence",
]
