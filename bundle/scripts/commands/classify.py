"""Classify a folder of images: ``python -m scripts.commands.classify --input DIR --output DIR [--model DIR]``."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from scripts import bundle_root
from scripts.commands.terminal import end, positive
from scripts.errors import UserError, install_error_hook
from scripts.files import require_apart

EPILOG = (
    "Images, DICOM and NIfTI are found in the folder and the folders within. Each gets a JSON file of its own, a DICOM "
    "image a structured report (SR) in its study; predictions.csv, refused.csv and predictions.json list them all. "
    "Without --input and --output the folders are those that MONAI Deploy (HOLOSCAN_INPUT_PATH, HOLOSCAN_OUTPUT_PATH, "
    "HOLOSCAN_MODEL_PATH) or mercure (MERCURE_IN_DIR, MERCURE_OUT_DIR) name; mercure's task.json may hold the other "
    "options as the module's settings. Exit status: 0 all images are classified, 1 nothing could be done, 2 unknown "
    "option, 3 some images are refused (0 with --allow_refused)."
)
REFUSED_STATUS = 3
TASK = "task.json"
MATPLOTLIB = "MPLCONFIGDIR"  # where matplotlib writes, which MONAI imports
SETTINGS = (
    *("model", "presentation", "threshold", "temperature", "saliency"),
    *("batch_size", "workers", "device", "allow_refused", "drift_images", "drift_level"),
)
STOPPED = "Each result that was written is whole: run the same command again."


def classify(given: argparse.Namespace) -> tuple[str, int]:
    """Classify the images of a folder.

    Args:
        given: the options; see :func:`options`.

    Returns:
        What was done, in one line, and the exit status.

    Raises:
        UserError: when a folder or the model is missing or of no use, or there is no image.
    """
    source, output = folder(given.input, "input"), folder(given.output, "output")
    if not Path(source).is_dir():
        raise UserError(f"input folder {source} is missing: give one that exists (--input)")
    require_apart(source, output)
    with libraries_writing_into(Path(output)):
        from scripts.commands.folder import classify_folder

        classified, refused, model = classify_folder(given)
    status = REFUSED_STATUS if refused and not given.allow_refused else 0
    return f"Classified {classified} images, refused {refused}: {output}\n{model}", status


@contextmanager
def libraries_writing_into(output: Path) -> Iterator[None]:
    """Let libraries write in the output folder what they write on being imported (a list of fonts), and remove it."""
    made, cache = not output.exists(), output / ".matplotlib"
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


def folder(name: str | None, kind: str) -> str:
    """Return the name of the input or output folder.

    Raises:
        UserError: when none is named.
    """
    if not name:
        words = kind.upper()
        mercure = {"input": "MERCURE_IN_DIR", "output": "MERCURE_OUT_DIR"}[kind]
        raise UserError(f"no {kind} folder: give one with --{kind}, or in HOLOSCAN_{words}_PATH or {mercure}")
    return name


def options(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    """Return the command's options.

    Args:
        environment: names the folders where the command line does not.
    """
    parser = argparse.ArgumentParser(prog="python -m scripts.commands.classify", description=__doc__, epilog=EPILOG)
    named = environment.get
    source = named("HOLOSCAN_INPUT_PATH") or named("MERCURE_IN_DIR")
    output = named("HOLOSCAN_OUTPUT_PATH") or named("MERCURE_OUT_DIR")
    models = named("HOLOSCAN_MODEL_PATH") or f"{bundle_root()}/models"
    parser.add_argument("--input", metavar="DIR", default=source, help="folder of images; only read")
    parser.add_argument("--output", metavar="DIR", default=output, help="folder of results; all that is written to")
    parser.add_argument("--model", metavar="DIR", default=models, help="trained model: network.json and model.pt")
    shown = "over how training showed DICOM and NIfTI: accept=derived,burned_in pictures=all window=40,400 ..."
    parser.add_argument("--presentation", metavar="KEY=VALUE", nargs="+", action="extend", default=[], help=shown)
    parser.add_argument("--threshold", type=float, help="a predicted class less probable than this is indeterminate")
    parser.add_argument("--temperature", type=float, help="divides the logits before the softmax")
    parser.add_argument("--saliency", choices=("png", "dicom"), help="draw Grad-CAM: a PNG, or a secondary capture too")
    parser.add_argument("--drift_images", type=positive, default=100, help="images compared at the end (%(default)s)")
    parser.add_argument("--drift_level", type=float, default=0.01, help="p-value of a drift alarm (%(default)s)")
    parser.add_argument("--batch_size", type=positive, default=32, help="images at once in the network (%(default)s)")
    parser.add_argument("--workers", type=positive, default=2, help="images read at the same time (%(default)s)")
    parser.add_argument("--device", help="where the network computes (cuda where there is one, else cpu)")
    parser.add_argument("--allow_refused", action="store_true", help="refused images leave the exit status 0")
    return parser


def task_settings(environment: Mapping[str, str]) -> list[str]:
    """Return the settings of mercure's ``task.json`` as options: ``process.settings``, of the module that runs.

    Of a chain of modules it does not say which one runs: its settings are left alone.

    Raises:
        UserError: when the file cannot be read, or a setting is none of ours.
    """
    path = Path(environment.get("MERCURE_IN_DIR", ""), TASK)
    if "MERCURE_IN_DIR" not in environment or not path.is_file():
        return []
    try:
        process: Any = json.loads(path.read_text(encoding="utf-8")).get("process") or {}
        modules = process if isinstance(process, list) else [process]
        settings = dict(modules[0].get("settings") or {}) if len(modules) == 1 else {}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UserError(f"cannot read the module's settings in {path}: it must be mercure's task.json") from error
    for name in settings:
        if name not in SETTINGS:
            raise UserError(f"unknown setting '{name}' in {path}: choose among {', '.join(SETTINGS)}")
    return [word for name, value in settings.items() for word in as_option(name, value)]


def as_option(name: str, value: Any) -> list[str]:
    """Return a setting as words of a command line."""
    if isinstance(value, bool):
        return [f"--{name}"] if value else []
    if isinstance(value, Mapping):
        listed = {key: ",".join(map(str, part)) if isinstance(part, list) else part for key, part in value.items()}
        return [f"--{name}", *(f"{key}={part}" for key, part in listed.items())]
    return [f"--{name}", str(value)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    return end(lambda: classify(options(os.environ).parse_args([*task_settings(os.environ), *words])))


if __name__ == "__main__":
    install_error_hook(STOPPED)
    sys.exit(main())
