"""Use a trained model: load it, classify a folder of images, evaluate it on test images."""

from scripts.edge.results import ModelIdentity, Result
from scripts.inference.classification import ImageClassifier
from scripts.inference.drift import DriftMonitor
from scripts.inference.evaluation import ClinicalReport, evaluation_items
from scripts.inference.folder import ResultFolder
from scripts.inference.images import IMAGE_SUFFIXES, ScreeningHandler, find_images, require_images
from scripts.inference.model import WeightsLoader, load_classifier, load_weights, model_folder, name_model
from scripts.inference.predictions import PredictionWriter
from scripts.inference.results import identify
from scripts.inference.saliency import Saliency, make_saliency
from scripts.inference.serving import Served
from scripts.inference.structured_report import structured_report

__all__ = [
    "IMAGE_SUFFIXES",
    "ClinicalReport",
    "DriftMonitor",
    "ImageClassifier",
    "ModelIdentity",
    "PredictionWriter",
    "Result",
    "ResultFolder",
    "Saliency",
    "ScreeningHandler",
    "Served",
    "WeightsLoader",
    "evaluation_items",
    "find_images",
    "identify",
    "load_classifier",
    "load_weights",
    "make_saliency",
    "model_folder",
    "name_model",
    "require_images",
    "structured_report",
]
