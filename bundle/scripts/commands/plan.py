"""Say what would be trained, and train nothing."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from scripts.commands.configs import CONFIGS, TRAIN, read_config
from scripts.commands.found import find_data
from scripts.commands.keys import top_level_keys
from scripts.commands.train import training_files
from scripts.commands.workflow import tell, workflow
from scripts.utils.running import command_name

PLAN = CONFIGS / "plan.json"


def plan(data: str, keys: Sequence[str], method: str | None, network: str | None, show: bool) -> str:
    """Run MONAI's ``run`` with the configs of a training, and of the plan over them.

    Args:
        data: see :func:`scripts.commands.found.find_data`.
        keys: ``--key value`` words, those of training and of ``configs/plan.json``.
        method: see :func:`scripts.commands.train.train`.
        network: as the method.
        show: return the equal line of MONAI, and plan nothing.

    Returns:
        How to train it, in one line.

    Raises:
        UserError: where the data cannot be planned.
    """
    found = find_data(data)
    if not show:
        tell(f"Planning {data}: {found.words}.")
    said = workflow([*training_files(found, method, network), PLAN], [*found.keys, *keys], show)
    options = [*(["--method", method] if method else []), *(["--network", network] if network else [])]
    words = [command_name(), "train", data, *options, *of_training(keys)]
    return said or f"Nothing was trained. To train: {shlex.join(words)}"


def of_training(keys: Sequence[str]) -> list[str]:
    """Return ``--key value`` words without those that a plan alone takes."""
    own = read_config(PLAN).keys() - read_config(TRAIN).keys()
    kept: list[str] = []
    skips = False
    for word in keys:
        if word.startswith("--"):
            skips = top_level_keys([word])[0] in own
        if not skips:
            kept.append(word)
    return kept
