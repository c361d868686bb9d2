"""Adapters by name, a file a kind."""

from scripts.model.networks.adapters.adapter import (
    ADAPTERS,
    MERGED,
    PLAIN,
    SHARED,
    AdaptedBlock,
    Adapter,
    Place,
    make_adapter,
)
from scripts.model.networks.adapters.attention import AttendedConvolutions, AttentionAdapter
from scripts.model.networks.adapters.bottleneck import Bottleneck
from scripts.model.networks.adapters.convolution import DYNAMMO, ConvAdapter, Convolutions
from scripts.model.networks.adapters.low_rank import LowRank, LowRankBlock, LowRankChange
from scripts.model.networks.adapters.pools import PromptPool
from scripts.model.networks.adapters.prompts import (
    L2P,
    CodaPrompt,
    DualPrompt,
    Prompts,
    chosen_by_majority,
)
from scripts.model.networks.adapters.shared import SharedAdapters

__all__ = [
    "ADAPTERS",
    "DYNAMMO",
    "L2P",
    "MERGED",
    "PLAIN",
    "SHARED",
    "AdaptedBlock",
    "Adapter",
    "AttendedConvolutions",
    "AttentionAdapter",
    "Bottleneck",
    "CodaPrompt",
    "ConvAdapter",
    "Convolutions",
    "DualPrompt",
    "LowRank",
    "LowRankBlock",
    "LowRankChange",
    "Place",
    "PromptPool",
    "Prompts",
    "SharedAdapters",
    "chosen_by_majority",
    "make_adapter",
]
