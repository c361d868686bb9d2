"""Find config files by name, and run MONAI with them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from fire.parser import DefaultParseValue

from scripts import bundle_root
from scripts.commands.key_table import read_keys
from scripts.utils.errors import UserError

if TYPE_CHECKING:
    from monai.bundle import ConfigParser

CONFIGS = Path(bundle_root()) / "configs"
TRAIN = CONFIGS / "train.json"
VOLUMES = CONFIGS / "networks" / "resnet18_3d.yaml"  # of every backbone for volumes
GENERATED = "generated"
SUFFIXES = (".json", ".yaml", ".yml")
COMBINED = (
    *("dynammo+lora", "dynammo+ridge", "dynammo+ridge+without_memory"),
    *("dynammo+levels+ridge", "dynammo+levels+ridge+without_memory"),
    *("dynammo+lora+ridge", "dynammo+lora+ridge+without_memory"),
    *("dynammo+lora+levels+ridge", "dynammo+lora+levels+ridge+without_memory"),
    *("finetune+without_memory", "first_task+ridge", "first_task+ridge+ranpac"),
    *("first_task+ridge+ncm", "frozen+ridge+ranpac"),
    *("frozen+ridge", "frozen+levels+ridge", "frozen+ridge+ncm", "frozen+ridge+fecam"),
    *("frozen+levels+ridge+orientations", "dynammo+lora+levels+ridge+without_memory+orientations+judged"),
)
"""Methods of several pages that the docs name."""
OF_TRANSFORMERS = ("coda_prompt", "dualprompt", "l2p")
"""Methods that learn on no other backbone than a plain vision transformer."""
_KINDS = {"clusters": "cluster", "datasets": "data set", "methods": "method", "networks": "network", "parts": "part"}


def data_files(data: str) -> list[Path]:
    """Return the configs of a data set.

    Args:
        data: the name of a file in ``configs/datasets``, ``generated`` (the images of ``train.json``: no further
            config), or a JSON or YAML file.

    Raises:
        UserError: as :func:`find_config`.
    """
    return [] if data == GENERATED else [find_config("datasets", data)]


def method_files(method: str) -> list[Path]:
    """Return the configs of a method, a page and parts joined by ``+``, or parts alone: ``dynammo+levels+ridge``.

    Args:
        method: names in ``configs/methods`` and ``configs/parts``; each may be a JSON or YAML file instead.

    Raises:
        UserError: as :func:`find_config`.
    """
    first, *parts = method.split("+")
    kind = "parts" if first in known_configs("parts") else "methods"
    return [find_config(kind, first), *(find_config("parts", part) for part in parts)]


def published_files(data: str, method: str) -> list[Path]:
    """Return the configs of the values published for a method on data sets, to be listed last.

    Args:
        data: names, separated by commas.
        method: see :func:`method_files`.
    """
    found = [CONFIGS / "published" / name / f"{method}.yaml" for name in data.split(",")]
    return [file for file in found if file.is_file()]


def known_methods() -> list[str]:
    """Return the names of all methods that the docs name and that learn on any backbone, sorted."""
    return sorted({*known_configs("methods"), *COMBINED} - {*OF_TRANSFORMERS})


def known_configs(folder: str) -> dict[str, Path]:
    """Return the configs in a folder of ``configs`` by their names, which are sorted."""
    return {path.stem: path for path in sorted((CONFIGS / folder).glob("*.yaml"))}


def find_config(folder: str, name: str) -> Path:
    """Return a config by the name that it has in a folder of ``configs``, or by its path.

    Args:
        folder: ``clusters``, ``datasets``, ``methods``, ``networks`` or ``parts``.
        name: the name of a file there, or a JSON or YAML file.

    Raises:
        UserError: where there is no such name, or the file cannot be used.
    """
    known = known_configs(folder)
    if name in known:
        return known[name]
    if not name.endswith(SUFFIXES):
        names = ", ".join([*known, *([GENERATED] if folder == "datasets" else [])])
        raise UserError(f"unknown {_KINDS[folder]} '{name}': choose one of {names}, or give a JSON or YAML file")
    read_config(Path(name))
    return Path(name).absolute()


def read_config(path: Path) -> dict[str, Any]:
    """Read the keys of a config.

    Raises:
        UserError: where it cannot be read, or holds no keys.
    """
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        said = " ".join(str(error).split())
        raise UserError(f"cannot read {path} ({said}): give a file like those in {CONFIGS}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no keys: give a file like those in {CONFIGS}")
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

    parser, known = ConfigParser(), read_keys()
    parser.read_config([str(file) for file in files])
    waiting = list(overrides)
    while waiting:
        key, equals, value = waiting.pop(0).removeprefix("--").partition("=")
        if not equals and not waiting:
            raise UserError(f"--{key} has no value")
        text = value if equals else waiting.pop(0)
        parser.update({key: known[key].read(text) if key in known else DefaultParseValue(text)})
    return parser
