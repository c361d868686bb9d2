"""A service that answers, collects labels and learns new classes, over HTTP with MONAI Label's routes."""

from scripts.deploy.service.access import Access
from scripts.deploy.service.answering import Answering
from scripts.deploy.service.guards import RequestLimits
from scripts.deploy.service.images import ImageStore
from scripts.deploy.service.server import serve
from scripts.deploy.service.service import Service
from scripts.deploy.service.trainings import Trainings

__all__ = [
    "Access",
    "Answering",
    "ImageStore",
    "RequestLimits",
    "Service",
    "Trainings",
    "serve",
]
