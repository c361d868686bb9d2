"""Data sets on disk."""

from scripts.learning.sources.cifar import Cifar
from scripts.learning.sources.cub200 import Cub200
from scripts.learning.sources.dicom_web import DicomWeb
from scripts.learning.sources.folders import ImageFolder, PathologyFolders
from scripts.learning.sources.generated import GeneratedFindings, GeneratedPathology
from scripts.learning.sources.generated_volumes import GeneratedVolumes
from scripts.learning.sources.isic import IsicChallenge
from scripts.learning.sources.lists import Datalist, LabelsCsv, ListFiles
from scripts.learning.sources.medmnist import MedMnist
from scripts.learning.sources.mednist import ensure_mednist
from scripts.learning.sources.pictures import Pictures
from scripts.learning.sources.scans import ScanFolders, Scans
from scripts.learning.sources.source import Group, Item, Source
from scripts.learning.sources.tiny_imagenet import TinyImageNet

__all__ = [
    "Cifar",
    "Cub200",
    "Datalist",
    "DicomWeb",
    "GeneratedFindings",
    "GeneratedPathology",
    "GeneratedVolumes",
    "Group",
    "ImageFolder",
    "IsicChallenge",
    "Item",
    "LabelsCsv",
    "ListFiles",
    "MedMnist",
    "PathologyFolders",
    "Pictures",
    "ScanFolders",
    "Scans",
    "Source",
    "TinyImageNet",
    "ensure_mednist",
]
