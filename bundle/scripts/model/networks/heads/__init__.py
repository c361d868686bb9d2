"""Heads by name, a file a family."""

from scripts.model.networks.heads.class_means import ClassMeansHead, CovariancesHead
from scripts.model.networks.heads.cosine import CosineHead, ProxyHead
from scripts.model.networks.heads.head import HEADS, LEVELS, RECTIFIED, SIGNED, Ability, Head, require
from scripts.model.networks.heads.linear import (
    ConcatenatedHead,
    LevelsHead,
    NearestMeanHead,
    RandomProjectionHead,
    UnifiedHead,
)
from scripts.model.networks.heads.others import OthersHead
from scripts.model.networks.heads.prepared import PreparedHead

__all__ = [
    "HEADS",
    "LEVELS",
    "RECTIFIED",
    "SIGNED",
    "Ability",
    "ClassMeansHead",
    "ConcatenatedHead",
    "CosineHead",
    "CovariancesHead",
    "Head",
    "LevelsHead",
    "NearestMeanHead",
    "OthersHead",
    "PreparedHead",
    "ProxyHead",
    "RandomProjectionHead",
    "UnifiedHead",
    "require",
]
