"""Immutable versions of a trained model, the gate they pass, and the log of what happened to them.

The gate is not imported here: to go back to an earlier version must not wait for torch.
"""

from scripts.deploy.versions.store import VersionStore

__all__ = [
    "VersionStore",
]
