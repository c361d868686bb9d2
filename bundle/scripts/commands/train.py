"""Train on data that are found out, and go on from a run with more of them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from scripts.commands.configs import CONFIGS, TRAIN, find_config, method_files, published_files, read_config
from scripts.commands.found import Found, find_data, source_of
from scripts.commands.workflow import tell, workflow
from scripts.utils.files import TASKS, require_folder

DEFAULT = "dynammo"
"""The method that ``train.json`` describes, without a page."""


def train(data: str, keys: Sequence[str], method: str | None, network: str | None, show: bool) -> str:
    """Learn the classes of a data set.

    Args:
        data: see :func:`scripts.commands.found.find_data`.
        keys: ``--key value`` words.
        method: its name with those of its parts; ``None``: DynaMMo.
        network: the name of a page in ``configs/networks``.
        show: return the equal line of MONAI, and train nothing.

    Raises:
        UserError: where something given cannot be meant, or the training ends with one.
    """
    found = find_data(data)
    if not show:
        tell(f"Training on {data}: {found.words}.")
    return workflow(training_files(found, method, network), [*found.keys, *keys], show)


def training_files(found: Found, method: str | None, network: str | None) -> list[Path]:
    """Return the configs of a training, later ones over earlier ones.

    Raises:
        UserError: for the name of a page that is not there.
    """
    networks = [find_config("networks", network)] if network else []
    methods = method_files(method) if method else []
    return [TRAIN, *networks, *found.files, *methods, *published_files(found.name, method or DEFAULT)]


def learn_more(run: str, data: str, keys: Sequence[str], show: bool) -> str:
    """Learn one more task after those of a run; all but the images is that run's.

    Args:
        run: its folder.
        data: see :func:`scripts.commands.found.find_data`; one task, unless ``--split`` divides it.
        keys: ``--key value`` words.
        show: return the equal line of MONAI, and train nothing.

    Raises:
        UserError: as :func:`train`.
    """
    require_folder(run, "run", "RUN")
    found = find_data(data)
    if not show:
        tell(f"Learning {data} after {run}: {found.words}.")
    places = found.keys[:2]  # the folder; how it is read is in the block below
    source = ["--source", repr(source_of(found))]  # a literal of Python, as MONAI reads its command line
    given = ["--previous", run, *later_folder(Path(run)), "--split", "$None", *places, *source]
    return workflow([TRAIN], [*given, *keys], show)


def later_folder(run: Path) -> list[str]:
    """Return the words that name the next run as this one, with the number of its last task; of no run, none."""
    if not (run / TASKS).is_file():
        return []  # which is said when it is read
    learnt = len(json.loads((run / TASKS).read_text(encoding="utf-8")))
    return ["--output_dir", f"runs/{re.sub(r'-t[0-9]+$', '', run.resolve().name)}-t{learnt + 1}"]


def on_a_run(run: str, configs: Sequence[str], key: str, keys: Sequence[str], show: bool) -> str:
    """Run configs on a finished run.

    Args:
        run: its folder, or that of one of its models.
        configs: names in ``configs``, later ones over earlier ones.
        key: names the run in them.
        keys: ``--key value`` words.
        show: return the equal line of MONAI, and do nothing.

    Raises:
        UserError: where there is no such folder, or as the configs do.
    """
    require_folder(run, "run", "RUN")
    files = [CONFIGS / f"{name}.json" for name in configs]
    for file in files:
        read_config(file)
    return workflow(files, [f"--{key}", run, *keys], show)
