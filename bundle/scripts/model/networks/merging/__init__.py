"""Merging: pure functions from the adapters of several tasks to one set."""

from scripts.model.networks.merging.merge import BATCHNORMS, Merging, Statistics, merge, pooled, recalibrate
from scripts.model.networks.merging.rows import (
    ROWS,
    Average,
    ByFisher,
    BySamples,
    Dare,
    MagMax,
    RegMean,
    Row,
    RunningMean,
    Slerp,
    Ties,
)

__all__ = [
    "BATCHNORMS",
    "ROWS",
    "Average",
    "ByFisher",
    "BySamples",
    "Dare",
    "MagMax",
    "Merging",
    "RegMean",
    "Row",
    "RunningMean",
    "Slerp",
    "Statistics",
    "Ties",
    "merge",
    "pooled",
    "recalibrate",
]
