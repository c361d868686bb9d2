"""A trained model as TorchScript, ONNX and 8-bit ONNX, pruned too."""

from scripts.deploy.export.exporter import Exporter, batches, spread
from scripts.deploy.export.pruning import Pruner

__all__ = [
    "Exporter",
    "Pruner",
    "batches",
    "spread",
]
