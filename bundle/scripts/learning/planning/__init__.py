"""What a training would learn from, counted and looked at before it begins."""

from scripts.learning.planning.contact_sheet import write_contact_sheets
from scripts.learning.planning.estimate import Estimate, estimate_training, planned_in, rehearsed_tasks
from scripts.learning.planning.plan import Plan, make_plan
from scripts.learning.planning.report import write_plan

__all__ = [
    "Estimate",
    "Plan",
    "estimate_training",
    "make_plan",
    "planned_in",
    "rehearsed_tasks",
    "write_contact_sheets",
    "write_plan",
]
