"""Say what would be trained, and train nothing: ``python -m scripts.commands.plan DATA [--key value ...]``."""

from __future__ import annotations

import argparse
import runpy
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from scripts.commands.configs import CONFIGS, TRAIN, data_files, run_arguments
from scripts.commands.terminal import end
from scripts.errors import UserError, find_user_error

EPILOG = (
    "The images are counted, read once and checked: tiny classes, broken images, images or patients in training and "
    "test, one image with two labels. The tables and a contact sheet of each class go to plan/ in the output folder. "
    "The keys are those of training, such as --dataset_dir, --split and --memory_size, and of configs/plan.json."
)


def plan(data: str, overrides: Sequence[str]) -> str:
    """Run MONAI's ``run`` with the configs of a data set and of the plan.

    Args:
        data: what is to be planned; see :func:`config_files`.
        overrides: ``--key value`` pairs for the config, as ``monai.bundle run`` takes them.

    Returns:
        How to train it, in one line.

    Raises:
        UserError: where the data cannot be planned.
    """
    files = config_files(data)
    if overrides and not overrides[0].startswith("--"):
        raise UserError(f"'{overrides[0]}' is no key: give a folder of images as --dataset_dir {overrides[0]}")
    sys.argv = ["monai.bundle", *run_arguments(files, overrides)]
    try:
        runpy.run_module("monai.bundle", run_name="__main__")
    except Exception as error:  # MONAI wraps what a constructor raises
        mistake = find_user_error(error)
        if mistake is None:
            raise
        raise mistake from error
    training = shlex.join(["python", "-m", "monai.bundle", *run_arguments(files[:-1], overrides)])
    return f"Nothing was trained. To train: {training}"


def config_files(data: str) -> list[Path]:
    """Return the configs of a plan, later ones over earlier ones.

    Args:
        data: the name of a file in ``configs/datasets``, ``generated``, or a JSON or YAML file.

    Raises:
        UserError: where there is no such data set, or the file cannot be used.
    """
    return [TRAIN, *data_files(data), CONFIGS / "plan.json"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        usage="python -m scripts.commands.plan DATA [--key value ...]", description=__doc__, epilog=EPILOG
    )
    parser.add_argument("data", metavar="DATA", help="generated, a name in configs/datasets, or a file")
    parser.add_argument("overrides", metavar="--key value", nargs=argparse.REMAINDER, help="keys of the config")
    given = parser.parse_args(arguments)
    return end(lambda: plan(given.data, given.overrides))


if __name__ == "__main__":
    sys.exit(main())
