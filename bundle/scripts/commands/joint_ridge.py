"""The ridge regression that sees all training images of a finished run at once."""

from __future__ import annotations

from pathlib import Path

from scripts.commands.configs import find_config, read_config
from scripts.commands.take_over import parser_of
from scripts.learning.features import CandidateSums, FeatureSums, JointRidge
from scripts.learning.handlers.checkpoint import read_checkpoint
from scripts.learning.tasks import Task
from scripts.model.networks import NetworkState
from scripts.utils.errors import UserError
from scripts.utils.files import CHECKPOINT

RIDGE = ("ridge", "sums")
"""Keys of the part, which stand in where a run has none of its own."""


def joint_ridge(run: Path) -> tuple[JointRidge, list[Task]]:
    """Return ridge regression on all training images of a run, in the features that it ended with, and its tasks.

    Where the run solved its head so, the shrinkage is the one that it chose.

    Args:
        run: the folder of a finished run, whose images are where they were.

    Raises:
        UserError: when there is no such run, its network is not one pass, or an image is gone.
    """
    if not (run / CHECKPOINT).is_file():
        raise UserError(f"no {CHECKPOINT} in {run}: give the output folder of a run")
    content = read_checkpoint(run / CHECKPOINT)
    if content["tasks_completed"] < content["tasks_planned"]:
        raise UserError(f"the run in {run} is not finished: finish it first")
    parser, part = parser_of(run), read_config(find_config("parts", "ridge"))
    parser.update({key: part[key] for key in RIDGE if key not in parser})
    parser.parse(reset=True)
    network = parser.get_parsed_content("network")
    NetworkState(network).load_state_dict(content["states"]["network"])
    tasks = list(parser.get_parsed_content("planned_tasks").tasks)
    sums: FeatureSums | CandidateSums = parser.get_parsed_content("sums")
    if "sums" in content["states"]:
        sums.load_state_dict(content["states"]["sums"])
    known = (sums.chosen.views, parser.get("ridge")["candidates"], sums.chosen.shrinkage or None)
    return JointRidge(network.head, parser.get_parsed_content("features"), tasks, *known), tasks
