"""Run MONAI's ``run`` in this process, with all said before that MONAI says otherwise or late."""

from __future__ import annotations

import logging
import runpy
import shlex
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from scripts.commands.configs import run_arguments
from scripts.commands.early import check_early
from scripts.commands.given import given
from scripts.commands.pages import inside
from scripts.utils.errors import find_user_error

CONFIG_FILE = "--config_file"
TRACKING = "--tracking"
NOT_TWICE = ("--save_execute_config", "False")
"""The run's folder holds its config anyway."""
QUIET = (
    "parsing config_file",  # the trust warning, which is given in our words
    "NvImgCodec",  # an optional GPU decoder for DICOM that is not installed
)
"""How warnings of libraries begin that tell a user nothing."""


def workflow(files: Sequence[Path], keys: Sequence[str], show: bool = False) -> str:
    """Run configs, or say how MONAI would be asked to.

    Args:
        files: the configs, later ones over earlier ones.
        keys: ``--key value`` words over them, as ``monai.bundle run`` takes them; ``--config_file`` names more files.
        show: return the equal line of MONAI, and run nothing.

    Raises:
        UserError: where the run ends with one.
    """
    files, keys = with_own_files(files, keys)
    if TRACKING in keys and NOT_TWICE[0] not in keys:
        keys = [*keys, *NOT_TWICE]
    arguments = run_arguments(files, keys)
    if show:
        return shlex.join(["python", "-m", "monai.bundle", *arguments])
    check_early(files, keys)
    if own := [str(file) for file in files if inside(file) is None]:
        tell(f"{', '.join(own)} may run any code, as a program may: use it only if you trust who wrote it.")
    tell("Loading torch and MONAI ...")
    for message in QUIET:
        warnings.filterwarnings("ignore", message=message)
    import monai.bundle  # whose loggers are then there  # noqa: F401

    logging.getLogger("monai.bundle.workflows").setLevel(logging.ERROR)  # it warns that our pages lie in folders
    sys.argv = ["monai.bundle", *arguments]
    try:
        runpy.run_module("monai.bundle", run_name="__main__")
    except Exception as error:  # MONAI wraps what a constructor raises
        mistake = find_user_error(error)
        if mistake is None:
            raise
        raise mistake from error
    return ""


def with_own_files(files: Sequence[Path], keys: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Take configs of one's own out of the keys, to be listed after the others."""
    said = given(["run", *keys])
    own = [] if said is None else [Path(file) for file in said.files]
    kept = [
        word
        for key, word in zip(["", *keys], keys, strict=False)
        if not word.startswith(CONFIG_FILE) and key != CONFIG_FILE
    ]
    return [*files, *own], kept


def tell(text: str) -> None:
    """Say what is being done, before anything is logged."""
    print(text, file=sys.stderr, flush=True)
