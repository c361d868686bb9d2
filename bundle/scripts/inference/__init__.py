"""Use a trained model: load it, classify a folder of images, evaluate it on test images."""

from scripts.inference.evaluation import ClinicalReport, evaluation_items, task_folder
from scripts.inference.images import IMAGE_SUFFIXES, ScreeningHandler, find_images, require_images
from scripts.inference.model import WeightsLoader, load_classifier, load_weights
from scripts.inference.predictions import PredictionWriter

__all__ = [
    "IMAGE_SUFFIXES",
    "ClinicalReport",
    "PredictionWriter",
    "ScreeningHandler",
    "WeightsLoader",
    "find_images",
    "load_classifier",
    "load_weights",
    "require_images",
    "task_folder",
    "evaluation_items",
]
