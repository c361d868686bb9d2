"""Handlers: one behaviour a file, each attached to events of the trainer."""

from scripts.handlers.adapter_averaging import AdapterAveragingHandler
from scripts.handlers.adapter_statistics import AdapterStatisticsHandler
from scripts.handlers.adapter_tuning import AdapterTuningHandler
from scripts.handlers.backbone_expansion import BackboneExpansionHandler
from scripts.handlers.backbone_training import BackboneTrainingHandler
from scripts.handlers.batchnorm_recalibration import BatchNormRecalibrationHandler
from scripts.handlers.bias_correction import BiasCorrectionHandler
from scripts.handlers.calibration import CalibrationHandler
from scripts.handlers.checkpoint import CheckpointHandler
from scripts.handlers.closed_form import ClosedFormHandler
from scripts.handlers.dark_experience import DarkExperienceHandler
from scripts.handlers.elastic_weight_consolidation import ElasticWeightConsolidationHandler
from scripts.handlers.evaluation import EvaluationHandler
from scripts.handlers.export import ExportHandler
from scripts.handlers.gradient_projection import GradientProjectionHandler
from scripts.handlers.imprinting import ImprintingHandler
from scripts.handlers.memory import MemoryHandler
from scripts.handlers.nearest_mean import NearestMeanHandler
from scripts.handlers.progress import ProgressHandler
from scripts.handlers.progress_file import ProgressFileHandler
from scripts.handlers.report import ReportHandler
from scripts.handlers.separate_adapters import SeparateAdaptersHandler
from scripts.handlers.teacher import TeacherHandler
from scripts.handlers.weight_alignment import WeightAlignmentHandler

__all__ = [
    "AdapterAveragingHandler",
    "AdapterStatisticsHandler",
    "AdapterTuningHandler",
    "BackboneExpansionHandler",
    "BackboneTrainingHandler",
    "BatchNormRecalibrationHandler",
    "BiasCorrectionHandler",
    "CalibrationHandler",
    "CheckpointHandler",
    "ClosedFormHandler",
    "DarkExperienceHandler",
    "ElasticWeightConsolidationHandler",
    "EvaluationHandler",
    "ExportHandler",
    "GradientProjectionHandler",
    "ImprintingHandler",
    "MemoryHandler",
    "NearestMeanHandler",
    "ProgressFileHandler",
    "ProgressHandler",
    "ReportHandler",
    "SeparateAdaptersHandler",
    "TeacherHandler",
    "WeightAlignmentHandler",
]
