"""Classify images with a trained model."""

from scripts.deploy.inference.classification import ImageClassifier
from scripts.deploy.inference.drift import DriftMonitor
from scripts.deploy.inference.folder import ResultFolder
from scripts.deploy.inference.images import ScreeningHandler, find_images, require_images
from scripts.deploy.inference.loading import load_image_classifier, load_reporting
from scripts.deploy.inference.predictions import PredictionWriter
from scripts.deploy.inference.saliency import Saliency, make_saliency
from scripts.deploy.inference.serving import Served

__all__ = [
    "DriftMonitor",
    "ImageClassifier",
    "PredictionWriter",
    "ResultFolder",
    "Saliency",
    "ScreeningHandler",
    "Served",
    "find_images",
    "load_image_classifier",
    "load_reporting",
    "make_saliency",
    "require_images",
]
