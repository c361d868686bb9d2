"""Data sets on disk, and how their classes are divided into tasks."""

from scripts.tasks.checks import check_images, readable_tasks
from scripts.tasks.cifar import Cifar
from scripts.tasks.contact_sheet import write_contact_sheets
from scripts.tasks.cub200 import Cub200
from scripts.tasks.dataset import ImageCache, ImageDataset
from scripts.tasks.folders import ImageFolder, PathologyFolders
from scripts.tasks.generated import GeneratedPathology
from scripts.tasks.generated_volumes import GeneratedVolumes
from scripts.tasks.holdout import HoldOut, KeepForValidation
from scripts.tasks.isic import IsicChallenge
from scripts.tasks.lists import Datalist, LabelsCsv, ListFiles
from scripts.tasks.medmnist import MedMnist
from scripts.tasks.mednist import ensure_mednist
from scripts.tasks.plan import Plan, make_plan
from scripts.tasks.plan_report import write_plan
from scripts.tasks.planned import plan_tasks
from scripts.tasks.record import images_digest, read_tasks, write_tasks
from scripts.tasks.scans import ScanFolders, Scans
from scripts.tasks.split import make_tasks
from scripts.tasks.task import Group, Item, Source, Task
from scripts.tasks.tiny_imagenet import TinyImageNet

__all__ = [
    "GeneratedPathology",
    "GeneratedVolumes",
    "Cifar",
    "Cub200",
    "Datalist",
    "Group",
    "HoldOut",
    "KeepForValidation",
    "ImageCache",
    "ImageDataset",
    "ImageFolder",
    "IsicChallenge",
    "Item",
    "LabelsCsv",
    "ListFiles",
    "MedMnist",
    "PathologyFolders",
    "Plan",
    "ScanFolders",
    "Scans",
    "Source",
    "Task",
    "TinyImageNet",
    "check_images",
    "ensure_mednist",
    "make_plan",
    "make_tasks",
    "plan_tasks",
    "images_digest",
    "read_tasks",
    "readable_tasks",
    "write_contact_sheets",
    "write_plan",
    "write_tasks",
]
