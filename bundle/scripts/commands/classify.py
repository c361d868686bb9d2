"""Classify a folder of images: ``python -m scripts.commands.classify --input DIR --output DIR [--models_dir DIR]``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from scripts import bundle_root
from scripts.commands.model import load_image_classifier
from scripts.commands.terminal import end
from scripts.errors import UserError, install_error_hook
from scripts.inference.folder import ResultFolder
from scripts.inference.images import find_images, require_apart
from scripts.inference.model import DESCRIPTION
from scripts.inference.saliency import KINDS, make_saliency

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
SETTINGS = (
    *("models_dir", "presentation", "threshold", "temperature", "saliency"),
    *("batch_size", "workers", "device", "allow_refused"),
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
    classifier = load_image_classifier(
        models_dir=model_folder(Path(given.models_dir)),
        presentation=settings_of(given.presentation),
        temperature=given.temperature,
        threshold=given.threshold,
        device=given.device,
        workers=given.workers,
    )
    items = find_images(source, classifier.suffixes, classifier.presentation)
    if not items:
        names = ", ".join(classifier.suffixes)
        raise UserError(
            f"input folder {source} has no images: put some there ({names}, DICOM or NIfTI), or use --input"
        )
    saliency = make_saliency(given.saliency, classifier.network, classifier.prepare)
    results = ResultFolder(output, lambda: classifier.model, saliency)
    results.start()
    said = classifier.classify_all([item["image"] for item in items], given.batch_size)
    for item, result in zip(items, said, strict=True):
        results.put(item["name"], item["image"], result)
    results.finish()
    refused = len(results.refusals)
    status = REFUSED_STATUS if refused and not given.allow_refused else 0
    return f"Classified {len(results.results)} images, refused {refused}: {output}", status


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


def settings_of(pairs: Sequence[str]) -> dict[str, str]:
    """Return ``KEY=VALUE`` texts as settings.

    Raises:
        UserError: for a text without ``=``.
    """
    for pair in pairs:
        if "=" not in pair:
            raise UserError(f"'{pair}' is no setting: give KEY=VALUE, such as window=40,400 (--presentation)")
    return dict(pair.split("=", 1) for pair in pairs)


def model_folder(folder: Path) -> Path:
    """Return the folder with the model: this one, or the only one in it that has one, as MONAI Deploy lays it."""
    if (folder / DESCRIPTION).is_file():
        return folder
    within = [path.parent for path in sorted(folder.glob(f"*/{DESCRIPTION}"))]
    if len(within) > 1:
        names = ", ".join(path.name for path in within)
        raise UserError(f"{folder} holds several models: give one of {names} with its folder (--models_dir)")
    return within[0] if within else folder


def positive(text: str) -> int:
    """Read a number above 0."""
    if not (text.isascii() and text.isdigit()) or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text} is no whole number above 0")
    return int(text)


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
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--input", metavar="DIR", default=source, help="folder of images; only read")
    parser.add_argument("--output", metavar="DIR", default=output, help="folder of results; all that is written to")
    parser.add_argument("--models_dir", metavar="DIR", default=models, help="trained model: network.json and model.pt")
    shown = "over how training showed DICOM and NIfTI: accept=derived,burned_in pictures=all window=40,400 ..."
    parser.add_argument("--presentation", metavar="KEY=VALUE", nargs="+", action="extend", default=[], help=shown)
    parser.add_argument("--threshold", type=float, help="a predicted class less probable than this is indeterminate")
    parser.add_argument("--temperature", type=float, help="divides the logits before the softmax")
    parser.add_argument("--saliency", choices=KINDS, help="draw Grad-CAM: a PNG, or a secondary capture too")
    parser.add_argument("--batch_size", type=positive, default=32, help="images at once in the network (%(default)s)")
    parser.add_argument("--workers", type=positive, default=4, help="images read at the same time (%(default)s)")
    parser.add_argument("--device", default=device, help="where the network computes (%(default)s)")
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
