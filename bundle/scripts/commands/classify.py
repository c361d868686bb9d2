"""Classify a folder of images, as pipelines do it and as ``configs/inference.json`` would."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scripts import bundle_root
from scripts.commands.configs import CONFIGS, read_config, run_arguments
from scripts.commands.early import check_early
from scripts.commands.given import given
from scripts.commands.key_table import read_keys
from scripts.commands.workflow import workflow
from scripts.utils.errors import UserError
from scripts.utils.files import cannot_write, require_apart, require_folder
from scripts.utils.words import counted

INFERENCE = CONFIGS / "inference.json"
REFUSED_STATUS = 3
TASK = "task.json"
MATPLOTLIB = "MPLCONFIGDIR"  # where matplotlib writes, which MONAI imports
SETTINGS = (
    *("model", "presentation", "threshold", "temperature", "saliency"),
    *("batch_size", "workers", "device", "allow_refused", "drift_images", "drift_level", "codes"),
)
OF_THE_ORDER = ("model", "workers", "allow_refused")


@dataclass(frozen=True)
class Order:
    """What is to be classified.

    Attributes:
        model: folder of a trained model; ``None``: the bundle's own ``models``.
        images: folder of the images; ``None``: none was named.
        output: folder of the results.
        keys: ``--key value`` words for ``inference.json``.
        workers: images read at the same time.
        allow_refused: whether refused images leave the exit status 0.
    """

    model: str | None
    images: str | None
    output: str
    keys: tuple[str, ...] = ()
    workers: int = 2
    allow_refused: bool = False

    @property
    def places(self) -> tuple[str, str, str]:
        """The folders of the model, the images and the results.

        Raises:
            UserError: when no folder of images is named.
        """
        if not self.images:
            raise UserError("no folder of images: name one (classify RUN IMAGES)")
        return self.model or f"{bundle_root()}/models", self.images, self.output

    def with_task(self, settings: Mapping[str, Any]) -> Order:
        """Return the order with mercure's settings, where the command line does not say otherwise."""
        own = {name: json.dumps(value) for name, value in settings.items() if name not in OF_THE_ORDER}
        return replace(
            self,
            model=self.model or settings.get("model"),
            workers=settings.get("workers", self.workers),
            allow_refused=self.allow_refused or settings.get("allow_refused", False),
            keys=(*(f"--{name}={text}" for name, text in own.items()), *self.keys),
        )

    def settings(self) -> dict[str, Any]:
        """Return the keys that ``inference.json`` has, with the values that were given."""
        said, settings = given(run_arguments([INFERENCE], self.keys)), read_config(INFERENCE)
        assert said is not None
        for place, value in said.values():
            key, inner, name = place.partition("#")
            settings[key] = {**settings[key], name: value} if inner else value
        return settings


def classify(order: Order, show: bool = False) -> str | tuple[str, int]:
    """Classify the images of a folder.

    Args:
        order: what is to be classified.
        show: return the equal line of MONAI, and classify nothing.

    Returns:
        What was done, in one line, and the exit status.

    Raises:
        UserError: when a folder or the model is missing or of no use, or there is no image.
    """
    order = order.with_task(task_settings(os.environ))
    model, images, output = order.places
    if show:
        places = ("--model", model, "--dataset_dir", images, "--output_dir", output)
        return workflow([INFERENCE], [*places, *order.keys], show)
    check_early([INFERENCE], order.keys)
    require_folder(images, "image folder", "IMAGES")
    require_apart(images, output)
    with libraries_writing_into(Path(output)):
        from scripts.commands.folder import classify_folder

        classified, refused, said = classify_folder(order)
    status = REFUSED_STATUS if refused and not order.allow_refused else 0
    return f"Classified {counted(classified, 'image')}, refused {refused}: {output}\n{said}", status


@contextmanager
def libraries_writing_into(output: Path) -> Iterator[None]:
    """Let libraries write in the output folder what they write on being imported (a list of fonts), and remove it.

    Raises:
        UserError: when the folder cannot be written.
    """
    made, cache = not output.exists(), output / ".matplotlib"
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(output, error) from error
    given = os.environ.get(MATPLOTLIB)
    os.environ.setdefault(MATPLOTLIB, str(cache))
    try:
        yield
    finally:
        if given is None:
            del os.environ[MATPLOTLIB]
        shutil.rmtree(cache, ignore_errors=True)
        if made:
            with suppress(OSError):  # there are results in it
                output.rmdir()


def task_settings(environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings of mercure's ``task.json``: ``process.settings``, of the module that runs.

    Of a chain of modules it does not say which one runs: its settings are left alone.

    Raises:
        UserError: when the file cannot be read, or a setting is none of ours or of another type.
    """
    path = Path(environment.get("MERCURE_IN_DIR", ""), TASK)
    if "MERCURE_IN_DIR" not in environment or not path.is_file():
        return {}
    try:
        process: Any = json.loads(path.read_text(encoding="utf-8")).get("process") or {}
        modules = process if isinstance(process, list) else [process]
        settings = dict(modules[0].get("settings") or {}) if len(modules) == 1 else {}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UserError(f"cannot read the module's settings in {path}: it must be mercure's task.json") from error
    known = {name: key for name, key in read_keys().items() if name in SETTINGS}
    for name, value in settings.items():
        if name not in SETTINGS:
            raise UserError(f"unknown setting '{name}' in {path}: choose among {', '.join(SETTINGS)}")
        takes = known[name].takes if name in known else "true or false"
        if not (known[name].fits(value) if name in known else isinstance(value, bool)):
            raise UserError(f"setting '{name}' in {path} is {value!r}: it takes {takes}")
    return settings
