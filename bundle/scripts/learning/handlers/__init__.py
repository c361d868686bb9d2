"""Handlers: one behaviour a file, each attached to events of the trainer."""

from scripts.learning.handlers.adapter_averaging import AdapterAveragingHandler
from scripts.learning.handlers.adapter_statistics import AdapterStatisticsHandler
from scripts.learning.handlers.adapter_tuning import AdapterTuningHandler
from scripts.learning.handlers.backbone_expansion import BackboneExpansionHandler
from scripts.learning.handlers.backbone_training import BackboneTrainingHandler
from scripts.learning.handlers.batchnorm_recalibration import BatchNormRecalibrationHandler
from scripts.learning.handlers.bias_correction import BiasCorrectionHandler
from scripts.learning.handlers.calibration import CalibrationHandler
from scripts.learning.handlers.centroid_map import CentroidMapHandler
from scripts.learning.handlers.checkpoint import CheckpointHandler
from scripts.learning.handlers.class_statistics import ClassStatisticsHandler
from scripts.learning.handlers.closed_form import ClosedFormHandler
from scripts.learning.handlers.dark_experience import DarkExperienceHandler
from scripts.learning.handlers.elastic_weight_consolidation import ElasticWeightConsolidationHandler
from scripts.learning.handlers.evaluation import EvaluationHandler
from scripts.learning.handlers.export import ExportHandler
from scripts.learning.handlers.extended_dark_experience import ExtendedDarkExperienceHandler
from scripts.learning.handlers.gradient_clipping import GradientClippingHandler
from scripts.learning.handlers.gradient_projection import GradientProjectionHandler
from scripts.learning.handlers.history import HistoryHandler
from scripts.learning.handlers.imprinting import ImprintingHandler
from scripts.learning.handlers.memory import MemoryHandler
from scripts.learning.handlers.nearest_mean import NearestMeanHandler
from scripts.learning.handlers.pretraining import MomentumContrastHandler, PretrainingHandler
from scripts.learning.handlers.progress import ProgressHandler
from scripts.learning.handlers.progress_file import ProgressFileHandler
from scripts.learning.handlers.prompt_choice import PromptChoiceHandler
from scripts.learning.handlers.rehearsal import RehearsalHandler
from scripts.learning.handlers.report import ReportHandler
from scripts.learning.handlers.separate_adapters import SeparateAdaptersHandler
from scripts.learning.handlers.task_groups import TaskGroupsHandler
from scripts.learning.handlers.teacher import TeacherHandler
from scripts.learning.handlers.tracking import TrackingHandler
from scripts.learning.handlers.weight_alignment import WeightAlignmentHandler

__all__ = [
    "AdapterAveragingHandler",
    "AdapterStatisticsHandler",
    "AdapterTuningHandler",
    "BackboneExpansionHandler",
    "BackboneTrainingHandler",
    "BatchNormRecalibrationHandler",
    "BiasCorrectionHandler",
    "CalibrationHandler",
    "CentroidMapHandler",
    "CheckpointHandler",
    "ClassStatisticsHandler",
    "ClosedFormHandler",
    "DarkExperienceHandler",
    "ElasticWeightConsolidationHandler",
    "EvaluationHandler",
    "ExportHandler",
    "ExtendedDarkExperienceHandler",
    "GradientClippingHandler",
    "GradientProjectionHandler",
    "HistoryHandler",
    "ImprintingHandler",
    "MemoryHandler",
    "MomentumContrastHandler",
    "NearestMeanHandler",
    "PretrainingHandler",
    "ProgressFileHandler",
    "ProgressHandler",
    "PromptChoiceHandler",
    "RehearsalHandler",
    "ReportHandler",
    "SeparateAdaptersHandler",
    "TaskGroupsHandler",
    "TeacherHandler",
    "TrackingHandler",
    "WeightAlignmentHandler",
]
