"""Engines: the events and stages of continual learning, and the trainer that goes through them."""

from scripts.engines.autocast import AutocastInferer
from scripts.engines.events import ContinualEvents
from scripts.engines.schedules import cosine, fractional_milestones
from scripts.engines.stage import AdapterTuning, BackboneTraining, BalancedFinetuning, ClosedForm, Stage, Training
from scripts.engines.trainer import ContinualTrainer

__all__ = [
    "AdapterTuning",
    "AutocastInferer",
    "BackboneTraining",
    "BalancedFinetuning",
    "ClosedForm",
    "ContinualEvents",
    "ContinualTrainer",
    "Stage",
    "Training",
    "cosine",
    "fractional_milestones",
]
