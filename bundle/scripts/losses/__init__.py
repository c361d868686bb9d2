"""Losses on :class:`scripts.networks.Outputs`: one function or small module each."""

from scripts.losses.cross_entropy import (
    auxiliary_cross_entropy,
    others_cross_entropy,
    others_targets,
    seen_cross_entropy,
)

__all__ = ["auxiliary_cross_entropy", "others_cross_entropy", "others_targets", "seen_cross_entropy"]
