"""Losses on :class:`scripts.model.networks.Outputs`: one function or small module each."""

from scripts.learning.losses.cross_entropy import (
    auxiliary_cross_entropy,
    expandable_der_loss,
    new_classes_cross_entropy,
    newest_cross_entropy,
    others_cross_entropy,
    others_targets,
    own_task_cross_entropy,
    seen_cross_entropy,
    softened_cross_entropy,
)
from scripts.learning.losses.dark_experience import der_loss, derpp_loss, stored_logits_error
from scripts.learning.losses.distillation import (
    bic_loss,
    icarl_loss,
    knowledge_distillation,
    lwf_loss,
)
from scripts.learning.losses.extended_dark_experience import xder_loss
from scripts.learning.losses.podnet import (
    nca_loss,
    podnet_loss,
    pooled_distillation,
)
from scripts.learning.losses.self_supervision import moco_loss, simsiam_loss
from scripts.learning.losses.ucir import less_forget_constraint, margin_ranking, ucir_loss

__all__ = [
    "auxiliary_cross_entropy",
    "der_loss",
    "derpp_loss",
    "icarl_loss",
    "expandable_der_loss",
    "less_forget_constraint",
    "knowledge_distillation",
    "lwf_loss",
    "margin_ranking",
    "moco_loss",
    "nca_loss",
    "new_classes_cross_entropy",
    "newest_cross_entropy",
    "others_cross_entropy",
    "others_targets",
    "own_task_cross_entropy",
    "pooled_distillation",
    "podnet_loss",
    "bic_loss",
    "ucir_loss",
    "seen_cross_entropy",
    "simsiam_loss",
    "softened_cross_entropy",
    "stored_logits_error",
    "xder_loss",
]
