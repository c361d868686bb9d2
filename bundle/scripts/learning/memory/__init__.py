"""Which images of old tasks are kept, and how."""

from scripts.learning.memory.exemplars import CopyStore, ExemplarMemory, PathStore
from scripts.learning.memory.held_out import divide
from scripts.learning.memory.logits import LogitMemory
from scripts.learning.memory.reservoir import ReservoirMemory
from scripts.learning.memory.selection import SELECTIONS, select

__all__ = [
    "SELECTIONS",
    "CopyStore",
    "ExemplarMemory",
    "LogitMemory",
    "PathStore",
    "ReservoirMemory",
    "divide",
    "select",
]
