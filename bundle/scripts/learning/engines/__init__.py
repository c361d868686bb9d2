"""Engines: the events and stages of continual learning, and the trainer that goes through them."""

from scripts.learning.engines.autocast import AutocastInferer
from scripts.learning.engines.events import ContinualEvents
from scripts.learning.engines.schedules import cosine, cosine_to_the_last, fractional_milestones
from scripts.learning.engines.stage import (
    AdapterTuning,
    BackboneTraining,
    BalancedFinetuning,
    ClosedForm,
    Pretraining,
    Stage,
    Training,
)
from scripts.learning.engines.trainer import ContinualTrainer

__all__ = [
    "AdapterTuning",
    "AutocastInferer",
    "BackboneTraining",
    "BalancedFinetuning",
    "ClosedForm",
    "ContinualEvents",
    "ContinualTrainer",
    "Pretraining",
    "Stage",
    "Training",
    "cosine",
    "cosine_to_the_last",
    "fractional_milestones",
]
