"""What a run is: the config it was started with, merged and resolved, in its folder, able to run itself."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
import platform
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts import bundle_root
from scripts.utils import formats
from scripts.utils.errors import UserError
from scripts.utils.files import CHECKPOINT, CONFIG, TASKS, write_atomically
from scripts.utils.running import RECORDED, running_parser
from scripts.utils.sums import file_sha256

if TYPE_CHECKING:
    from monai.bundle import ConfigParser

PACKAGES = ("monai", "numpy", "pytorch-ignite", "torch", "torchvision")

AS_WRITTEN = ("_meta_", "finalize", "imports", "initialize", "run")
"""What a config does, rather than says: never evaluated to be recorded, never compared."""
PLACES = "_dir"
"""How the keys end that say where something lies: never compared."""
MAY_DIFFER = (
    *("bundle_root", "previous", "restart", "device", "limits", "tasks#check", "source#download"),
    *("source#root#download", "adapter_tuning#stem_maps"),
    *("weights", "network_def#weights_sha256"),  # their hash is compared
)
"""Places of a config that change nothing of what is learnt."""
DATA = ("source", "split", "planned_tasks", "tasks")
"""Keys that say which images are learnt when: a run that goes on compares the images of the tasks already learnt."""
LATER = (
    *("data", "backbone_epochs", "adapter_epochs", "finetune_epochs", "batch_size"),
    *("balanced_finetuning#features#views", "train#inferer", "random_transforms", "memory#exemplars"),
)
"""Keys that say how long, and how, the images of one task are trained on: a later task may have others."""
PROGRESS = (
    *("scripts.learning.handlers.ProgressFileHandler", "scripts.learning.handlers.TrackingHandler"),
    *("MLFlowHandler", "StatsHandler", "TensorBoardStatsHandler"),
)
"""Handlers that only look on."""
_SHORT = 16


def running_config() -> dict[str, Any]:
    """Return the config that is being resolved, as a run writes it down."""
    return config_of(running_parser())


def config_of(parser: ConfigParser) -> dict[str, Any]:
    """Return a merged config as a run writes it down: resolved, with what it runs on."""
    weights = weights_digest(parser.get_parsed_content("weights"))
    return {**resolved(parser.get()), RECORDED: {"format": formats.RUN, "weights": weights, **versions()}}


def resolved(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a merged config with its expressions over literals evaluated.

    Blocks with ``_target_``, references, and expressions over objects stay as written, and so does what depends on a
    key that may differ: the config gives the same run on another machine. Relative paths become absolute.
    """
    from monai.bundle import ConfigParser  # takes seconds

    parser = ConfigParser(deepcopy(dict(config)))
    parser.parse()
    found = _evaluated({key: value for key, value in parser.get().items() if key not in ("_meta_", RECORDED)}, parser)
    plain: dict[str, Any] = json.loads(json.dumps(found, default=str))
    return {key: _absolute(key, value) for key, value in plain.items()}


def _evaluated(value: Any, parser: ConfigParser, place: str = "") -> Any:
    if not place:
        return {
            key: own if key in AS_WRITTEN or may_differ(key) else _evaluated(own, parser, key)
            for key, own in value.items()
        }
    if isinstance(value, Mapping):
        return {key: _evaluated(own, parser, f"{place}#{key}") for key, own in value.items()}
    if isinstance(value, list | tuple):
        return [_evaluated(own, parser, f"{place}#{number}") for number, own in enumerate(value)]
    if isinstance(value, str) and value.startswith("$") and _is_over_literals(value, parser, ()):
        try:
            found = parser.get_parsed_content(place)
            json.dumps(found, allow_nan=False)
        except Exception:  # what cannot be evaluated, or written down, is an object's business
            return value
        return found
    return value


def _is_over_literals(value: Any, parser: ConfigParser, seen: tuple[str, ...]) -> bool:
    """Say whether a value needs no object, and no key that may differ, to be known."""
    from monai.bundle.reference_resolver import ReferenceResolver

    if isinstance(value, Mapping):
        return "_target_" not in value and all(_is_over_literals(own, parser, seen) for own in value.values())
    if isinstance(value, list | tuple):
        return all(_is_over_literals(own, parser, seen) for own in value)
    if not isinstance(value, str):
        return True
    for name in ReferenceResolver.match_refs_pattern(value) if value[:1] in ("$", "@") else ():
        if name in seen or may_differ(name.split("#")[0]) or name not in parser:
            return False
        if not _is_over_literals(parser[name], parser, (*seen, name)):
            return False
    return True


def _absolute(key: str, value: Any) -> Any:
    """Return the value of a top-level key, a relative path made absolute."""
    is_place = key.endswith(PLACES) or key == "previous" or (key == "weights" and Path(str(value)).is_file())
    if not is_place or not isinstance(value, str) or value[:1] in ("$", "@", "%"):
        return value
    return str(Path(value).absolute())


def may_differ(key: str) -> bool:
    """Say whether a top-level key may differ between two runs that learn the same."""
    return key in MAY_DIFFER or key.endswith(PLACES)


def what_matters(config: Mapping[str, Any], apart: Sequence[str] = ()) -> dict[str, Any]:
    """Return the keys of a resolved config that matter for what is learnt, but for those named ``apart``."""
    left_out = {*AS_WRITTEN, RECORDED, *MAY_DIFFER, *apart}
    kept = [key for key in config if key not in left_out and not key.endswith(PLACES)]
    return {key: _without(config[key], key, left_out) for key in kept}


def _without(value: Any, place: str, left_out: Set[str]) -> Any:
    """Return a value without the places in it that are left out."""
    if not isinstance(value, Mapping):
        return value
    inner = {key: f"{place}#{key}" for key in value}
    return {key: _without(value[key], inner[key], left_out) for key in value if inner[key] not in left_out}


def differences(before: Mapping[str, Any], now: Mapping[str, Any], apart: Sequence[str] = ()) -> list[str]:
    """Return what differs between two resolved configs and matters for what is learnt, each with both values.

    Args:
        before: of the run that was.
        now: of the run that is to be.
        apart: keys that are compared otherwise (:data:`DATA`), or that a later task may have anew (:data:`LATER`; the
            pretrained weights do not matter either then).
    """
    found = list(_compared(what_matters(before, apart), what_matters(now, apart), ""))
    if not set(LATER) <= set(apart):
        old, new = (config.get(RECORDED, {}).get("weights") for config in (before, now))
        found += list(_compared(old, new, "weights"))
    return [f"{place} was {_shown(old)}, is {_shown(new)}" for place, old, new in found]


_MISSING = object()


def _compared(before: Any, now: Any, place: str) -> Iterator[tuple[str, Any, Any]]:
    if place.endswith("handlers"):
        before, now = (_by_target(handlers) for handlers in (before, now))
        if isinstance(before, dict) and isinstance(now, dict) and before.keys() == now.keys() and [*before] != [*now]:
            yield f"{place} (their order)", ", ".join(before), ", ".join(now)
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in {**before, **now}:
            inner = f"{place}#{key}" if place else str(key)
            yield from _compared(before.get(key, _MISSING), now.get(key, _MISSING), inner)
    elif _are_alike(before, now):
        for number, (old, new) in enumerate(zip(before, now, strict=True)):
            yield from _compared(old, new, f"{place}#{number}")
    elif before != now and not (_is_nan(before) and _is_nan(now)):
        yield place, before, now


def _are_alike(before: Any, now: Any) -> bool:
    """Say whether these are lists of blocks that are compared one by one; a list of values is compared whole."""
    if not isinstance(before, list) or not isinstance(now, list) or len(before) != len(now):
        return False
    return any(isinstance(one, Mapping | list) for one in (*before, *now))


def _by_target(handlers: Any) -> Any:
    """Return handlers by their class: what is added or left out moves no other, and those that only look on go."""
    if not isinstance(handlers, list) or not all(isinstance(one, Mapping) and "_target_" in one for one in handlers):
        return handlers
    listed = [one for one in handlers if one["_target_"] not in PROGRESS]
    return {one["_target_"].rpartition(".")[2]: one for one in listed}


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _shown(value: Any) -> str:
    if value is _MISSING:
        return "(not there)"
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 80 else f"{text[:60]} ... {text[-16:]}"


def plain_settings(config: Mapping[str, Any], place: str = "") -> dict[str, str | int | float | bool]:
    """Return the texts and numbers of a config by their places (``optimizer#lr``), expressions left out."""
    found: dict[str, str | int | float | bool] = {}
    for key, value in config.items():
        own = f"{place}#{key}" if place else str(key)
        if isinstance(value, Mapping):
            found |= plain_settings(value, own)
        elif isinstance(value, str | int | float) and not str(value).startswith(("$", "@", "%")):
            found[own] = value
    return found


def config_digest(config: Mapping[str, Any]) -> str:
    """Return a hash of all of a resolved config that matters for what is learnt, on any machine."""
    kept = {**what_matters(config), "weights": config.get(RECORDED, {}).get("weights")}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:_SHORT]


def weights_digest(weights: str | None) -> str | None:
    """Return the sha256 of a file of pretrained weights, or the name of weights that torchvision checks itself."""
    if weights is None or not Path(weights).is_file():
        return weights
    return file_sha256(weights)


def versions() -> dict[str, Any]:
    """Return the versions of the bundle, Python and packages, and a hash of the bundle's code."""
    root = Path(bundle_root())
    code = hashlib.sha256()
    for path in sorted((root / "scripts").rglob("*.py")):
        code.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    metadata = json.loads((root / "configs" / "metadata.json").read_text(encoding="utf-8"))
    packages = {name: importlib.metadata.version(name) for name in PACKAGES}
    listed = {"bundle": metadata["version"], "python": platform.python_version(), **packages}
    return {"code": code.hexdigest()[:_SHORT], "versions": listed}


def write_run_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write the config of a run that starts."""
    write_atomically(folder / CONFIG, json.dumps(config, indent=4) + "\n")


def read_run_config(folder: str | Path) -> dict[str, Any]:
    """Read the config of a run.

    Args:
        folder: a run's, or one of its ``task_<t>``.

    Raises:
        UserError: when there is none, or it cannot be read.
    """
    path = next((place / CONFIG for place in (Path(folder), Path(folder).parent) if (place / CONFIG).is_file()), None)
    if path is None:
        raise UserError(
            f"{folder} has no {CONFIG}: it is no run, or one of before runs wrote it; give a run's folder, another "
            "--output_dir, or --restart true"
        )
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found = content[RECORDED].get("format", formats.RUN)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path} is no run's config ({error!r}): restore it, or train anew") from error
    formats.require_known(path, found, formats.RUN)
    return content


def check_run(folder: str, config: Mapping[str, Any], restart: bool) -> None:
    """Refuse, before any image is opened, to go on with a run whose config was another one.

    Args:
        folder: the run's.
        config: of now.
        restart: whether the run is to begin anew.

    Raises:
        UserError: names every difference.
    """
    if not restart and (Path(folder) / CHECKPOINT).is_file():
        refuse(differences(read_run_config(folder), config, DATA), folder)


def refuse(changed: Sequence[str], folder: str | Path) -> None:
    """Refuse to go on with a run in a folder where something has changed.

    Raises:
        UserError: names it all.
    """
    if changed:
        raise UserError(
            f"the run in {folder} has learnt with other settings ({'; '.join(changed)}): "
            "give the old ones, another --output_dir, or --restart true"
        )


def run_folder(root: str, data: str, method: str, backbone: str, seed: int, previous: str | None = None) -> str:
    """Return the default folder of a run, ``<root>/<data>-<method>-<backbone>-s<seed>``.

    Args:
        root: holds all runs.
        data: name of the data set or, of one's own images, their folder.
        method: its name.
        backbone: its name.
        seed: of the run.
        previous: folder of the run before it, of T tasks: then the name ends in ``-t<T + 1>``.
    """
    short = re.sub(r"[^\w.-]+", "_", backbone)  # timm's names have colons and slashes
    name = f"{Path(data).name}-{method}-{short}-s{seed}"
    if previous is not None and (Path(previous) / TASKS).is_file():
        name += f"-t{len(json.loads((Path(previous) / TASKS).read_text())) + 1}"
    return str(Path(root) / name)


def is_finished(folder: Path) -> bool:
    """Say whether the run in a folder has learnt all its tasks."""
    if not all((folder / name).is_file() for name in (CONFIG, CHECKPOINT, TASKS)):
        return False
    learnt = json.loads((folder / TASKS).read_text(encoding="utf-8"))
    return len(learnt) == read_run_config(folder)[RECORDED].get("tasks")
