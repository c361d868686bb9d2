"""Learn the task that a labelling service has ordered: ``python -m scripts.commands.learn FOLDER``.

A process of its own: it goes on when the service ends. It trains, takes the new version in, and promotes it where the
gate lets it pass; how it stands is in the folder.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts import child_environment
from scripts.commands.configs import read_config, run_arguments
from scripts.commands.versions import Refused, promote
from scripts.deploy.service.background import DONE, ERROR, now
from scripts.deploy.service.trainings import LOG, ORDER, OUTCOME, PROGRESS, RUN
from scripts.deploy.versions.store import VersionStore
from scripts.learning.run_config import read_run_config
from scripts.utils.errors import UserError, describe
from scripts.utils.files import CONFIG, WEIGHTS, last_line, write_atomically
from scripts.utils.sums import file_sha256

NICENESS = 10


def config_of(order: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the keys that make a training learn what is ordered; all else is of the run that is gone on from.

    Args:
        order: see :class:`scripts.deploy.service.trainings.Trainings`.
        folder: of the order.
    """
    source = {
        "_target_": "scripts.learning.sources.Datalist",
        "root": order["images"],
        "file": str(folder / ORDER),
        "test": None,
        "group": "group",
    }
    return {
        "source": source,
        "split": [order["classes"]],
        "planned_tasks#order": None,
        "planned_tasks#limit": None,
        "previous": order["previous"],
        "output_dir": str(folder / RUN),
        "+train#handlers": [
            {"_target_": "scripts.learning.handlers.ProgressFileHandler", "path": str(folder / PROGRESS)}
        ],
        **order["settings"],
    }


def learn(folder: Path) -> dict[str, Any]:
    """Train, take the version in, and promote it.

    Args:
        folder: of the order.

    Returns:
        Which version it is, whether it is served, and what the gate objects to.

    Raises:
        UserError: the training failed; its last line says why.
    """
    order = read_config(folder / ORDER)
    store = VersionStore(**order["store"], by=order["by"])
    store.version(order["version"])
    read_run_config(order["previous"])  # now, not once MONAI has been loaded
    write_atomically(folder / CONFIG, json.dumps(config_of(order, folder), indent=4) + "\n")
    _train(folder, [Path(order["previous"]) / CONFIG, folder / CONFIG])
    write_atomically(folder / PROGRESS, json.dumps({"stage": "testing the version"}))
    from scripts.commands.examine import add  # takes seconds to import, and much memory

    add(store, folder / RUN)
    weights = file_sha256(folder / RUN / WEIGHTS)
    number = next(version.number for version in store.versions() if version.record["files"][WEIGHTS] == weights)
    try:
        promote(store, number, order["gate"])
    except Refused as refusal:
        return {"version": number, "promoted": False, "reason": str(refusal)}
    return {"version": number, "promoted": True, "reason": None}


def _train(folder: Path, configs: Sequence[Path]) -> None:
    command = [sys.executable, "-m", "monai.bundle", *run_arguments(configs, [])]
    with (folder / LOG).open("ab") as log:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=child_environment(),
            close_fds=False,  # the folder's lock is held for as long as this one writes there
        )
    if done.returncode:
        raise UserError(last_line(folder / LOG).removeprefix("Error: "))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m scripts.commands.learn", description=__doc__)
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="what the service has ordered")
    folder = parser.parse_args(arguments).folder
    try:
        outcome = {"status": DONE, "result": learn(folder)}
    except Exception as error:
        outcome = {
            "status": ERROR,
            "result": {"version": None, "promoted": False, "reason": describe(error).removeprefix("Error: ")},
        }
    write_atomically(folder / OUTCOME, json.dumps({**outcome, "end_ts": now()}))
    return 0


if __name__ == "__main__":
    os.nice(NICENESS)  # who asks the service goes before
    sys.exit(main())
