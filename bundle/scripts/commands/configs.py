"""Find config files by name, and run MONAI with them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fire.parser import DefaultParseValue

from scripts import bundle_root
from scripts.errors import UserError

if TYPE_CHECKING:
    from monai.bundle import ConfigParser

CONFIGS = Path(bundle_root()) / "configs"
TRAIN = CONFIGS / "train.json"
VOLUMES = CONFIGS / "networks" / "resnet18_3d.json"  # of every backbone for volumes
GENERATED = "generated"
_KINDS = {"datasets": "data set", "methods": "method"}


def data_files(data: str) -> list[Path]:
    """Return the configs of a data set.

    Args:
        data: the name of a file in ``configs/datasets``, ``generated`` (the images of ``train.json``: no further
            config), or a JSON file.

    Raises:
        UserError: as :func:`find_config`.
    """
    return [] if data == GENERATED else [find_config("datasets", data)]


def known_configs(folder: str) -> dict[str, Path]:
    """Return the configs in a folder of ``configs`` by their names, which are sorted."""
    return {path.stem: path for path in sorted((CONFIGS / folder).glob("*.json"))}


def find_config(folder: str, name: str) -> Path:
    """Return a config by the name that it has in a folder of ``configs``, or by its path.

    Args:
        folder: ``datasets`` or ``methods``.
        name: the name of a file there, or a JSON file.

    Raises:
        UserError: where there is no such name, or the JSON file cannot be used.
    """
    known = known_configs(folder)
    if name in known:
        return known[name]
    if not name.endswith(".json"):
        names = ", ".join([*known, *([GENERATED] if folder == "datasets" else [])])
        raise UserError(f"unknown {_KINDS[folder]} '{name}': choose one of {names}, or give a JSON file")
    read_config(Path(name))
    return Path(name).absolute()


def read_config(path: Path) -> dict[str, Any]:
    """Read the keys of a config.

    Raises:
        UserError: where it cannot be read, or holds no keys.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path} ({error}): give a JSON file like those in {CONFIGS}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no keys: give a JSON file like those in {CONFIGS}")
    return content


def run_arguments(files: Sequence[Path], overrides: Sequence[str]) -> list[str]:
    """Return the arguments of ``python -m monai.bundle`` that run configs, later ones over earlier ones.

    Args:
        files: the configs.
        overrides: ``--key value`` pairs, over them all.
    """
    # double quotes inside, so that a shell's single quotes go around them unescaped
    return ["run", "--config_file", json.dumps([str(file) for file in files], ensure_ascii=False), *overrides]


def parse_config(files: Sequence[Path], overrides: Sequence[str]) -> ConfigParser:
    """Return what builds the objects of configs, as ``python -m monai.bundle run`` does with :func:`run_arguments`.

    Args:
        files: the configs, later ones over earlier ones.
        overrides: ``--key value`` or ``--key=value``, over them all.

    Raises:
        UserError: where a key has no value.
    """
    from monai.bundle import ConfigParser  # takes seconds, which a command that only starts others can spare

    parser = ConfigParser()
    parser.read_config([str(file) for file in files])
    waiting = list(overrides)
    while waiting:
        key, equals, value = waiting.pop(0).removeprefix("--").partition("=")
        if not equals and not waiting:
            raise UserError(f"--{key} has no value")
        parser.update({key: DefaultParseValue(value if equals else waiting.pop(0))})
    return parser
