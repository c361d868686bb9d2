"""Data sets on disk, and how their classes are divided into tasks."""

from scripts.tasks.checks import check_images, readable_tasks
from scripts.tasks.dataset import ImageCache, ImageDataset
from scripts.tasks.folders import ImageFolder, PathologyFolders
from scripts.tasks.generated import ensure_generated
from scripts.tasks.generated_volumes import GeneratedVolumes
from scripts.tasks.lists import LabelsCsv, ListFiles
from scripts.tasks.medmnist import MedMnist
from scripts.tasks.record import read_tasks, run_folder, write_tasks
from scripts.tasks.split import make_tasks
from scripts.tasks.task import Group, Item, Source, Task

__all__ = [
    "GeneratedVolumes",
    "Group",
    "ImageCache",
    "ImageDataset",
    "ImageFolder",
    "Item",
    "LabelsCsv",
    "ListFiles",
    "MedMnist",
    "PathologyFolders",
    "Source",
    "Task",
    "check_images",
    "ensure_generated",
    "make_tasks",
    "read_tasks",
    "readable_tasks",
    "run_folder",
    "write_tasks",
]
