"""Losses on :class:`scripts.networks.Outputs`: one function or small module each."""

from scripts.losses.cross_entropy import (
    auxiliary_cross_entropy,
    expansion_cross_entropy,
    others_cross_entropy,
    others_targets,
    seen_cross_entropy,
    softened_cross_entropy,
)
from scripts.losses.dark_experience import dark_experience, dark_experience_plus, stored_logits_error
from scripts.losses.distillation import (
    equal_distillation,
    knowledge_distillation,
    learning_without_forgetting,
    proportional_distillation,
)
from scripts.losses.margin import feature_distillation, margin_ranking, rebalanced_cross_entropy
from scripts.losses.pooled_outputs import (
    neighbourhood_components,
    pooled_distillation,
    pooled_outputs_distillation,
)

__all__ = [
    "auxiliary_cross_entropy",
    "dark_experience",
    "dark_experience_plus",
    "equal_distillation",
    "expansion_cross_entropy",
    "feature_distillation",
    "knowledge_distillation",
    "learning_without_forgetting",
    "margin_ranking",
    "neighbourhood_components",
    "others_cross_entropy",
    "others_targets",
    "pooled_distillation",
    "pooled_outputs_distillation",
    "proportional_distillation",
    "rebalanced_cross_entropy",
    "seen_cross_entropy",
    "softened_cross_entropy",
    "stored_logits_error",
]
