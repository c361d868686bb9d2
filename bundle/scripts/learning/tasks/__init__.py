"""How the classes of a source are divided into tasks, and a task's images."""

from scripts.learning.tasks.checks import check_images, readable_tasks
from scripts.learning.tasks.dataset import ImageCache, ImageDataset
from scripts.learning.tasks.holdout import HoldOut, KeepForValidation
from scripts.learning.tasks.labels import widened
from scripts.learning.tasks.planned import PlannedTasks, plan_tasks
from scripts.learning.tasks.record import images_digest, read_tasks, testable, write_tasks
from scripts.learning.tasks.split import make_tasks
from scripts.learning.tasks.task import Task
from scripts.learning.tasks.unlabelled import plan_pretraining

__all__ = [
    "HoldOut",
    "ImageCache",
    "ImageDataset",
    "KeepForValidation",
    "PlannedTasks",
    "Task",
    "check_images",
    "images_digest",
    "make_tasks",
    "plan_tasks",
    "plan_pretraining",
    "read_tasks",
    "readable_tasks",
    "testable",
    "widened",
    "write_tasks",
]
