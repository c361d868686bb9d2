"""Write a finished run as a MONAI bundle in a zip file: ``python -m scripts.commands.package RUN_DIR ZIP_FILE``."""

from __future__ import annotations

import argparse
import json
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from scripts import bundle_root
from scripts.commands.terminal import end
from scripts.errors import UserError
from scripts.files import DESCRIPTION, WEIGHTS, write_atomically
from scripts.inference.model import load_classifier
from scripts.networks.backbones import spatial_dims
from scripts.networks.classifier import class_names, read_description
from scripts.run_config import CONFIG, may_differ, read_run_config

FOLDERS = ("configs", "docs", "scripts")
METADATA = "configs/metadata.json"
TRAIN = "configs/train.json"
INFERENCE = "configs/inference.json"
VOLUMES = "configs/inference_volumes.json"  # what differs for volumes
COLOUR = "scripts.transforms.make_colour"
FIGURES = ("final_accuracy", "average_accuracy", "final_mean_class_recall", "average_mean_class_recall")
DATE = (1980, 1, 1, 0, 0, 0)  # the earliest a zip can hold: the same run gives the same bytes
MODE = 0o644 << 16


def package(run: Path, target: Path, root: Path) -> str:
    """Write the zip: the bundle's code and configs, the run's model, and metadata that fits that model.

    Args:
        run: a run's folder.
        target: the zip file; the folder in it is called like the file, without ``.zip``.
        root: the bundle's folder.

    Returns:
        What was done, in one line.

    Raises:
        UserError: when the folder holds no finished run, or the file cannot be written.
    """
    if target.suffix != ".zip":
        raise UserError(f"{target} is no zip file: give a name that ends in .zip")
    if not run.is_dir():
        raise UserError(f"run folder {run} is missing: give the output folder of a finished run")
    content = _files(root)
    content.update(_model(run, root))

    def write(file: BinaryIO) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            for name, data in sorted(content.items()):
                entry = zipfile.ZipInfo(f"{target.stem}/{name}", DATE)
                entry.external_attr = MODE
                entry.compress_type = zipfile.ZIP_STORED if name.endswith(WEIGHTS) else zipfile.ZIP_DEFLATED
                archive.writestr(entry, data)

    write_atomically(target, write)
    return f"{target}: the bundle with the model of {run}, {target.stat().st_size / 2**20:.1f} MiB."


def fitted_metadata(
    metadata: Mapping[str, Any], description: Mapping[str, Any], metrics: Mapping[str, Any]
) -> dict[str, Any]:
    """Return ``metadata.json`` as it is true of a trained network.

    Args:
        metadata: the bundle's own, of the main job.
        description: the network's ``network.json``.
        metrics: the run's ``metrics.json``; figures that were not measured are left out.
    """
    classes, side = class_names(description), description["image_size"]
    fitted: dict[str, Any] = json.loads(json.dumps(metadata))
    tensors = fitted["network_data_format"]
    image, prediction = tensors["inputs"]["image"], tensors["outputs"]["pred"]
    image["spatial_shape"] = [side] * spatial_dims(description["backbone"])
    image["value_range"] = _value_range(description["mean"], description["std"])
    prediction["num_channels"] = len(classes)
    prediction["channel_def"] = {str(number): name for number, name in enumerate(classes)}
    kind, channels = "RGB images", "red, green and blue"
    if len(image["spatial_shape"]) == 3:
        kind, channels, fitted["data_type"] = "volumes", "all voxels", "npy"
        image.update(format="grey", num_channels=1, channel_def={"0": "intensity"})
    fitted["image_classes"] = (
        f"{kind} of {' x '.join(map(str, image['spatial_shape']))} pixels, {_colour(description)}scaled to 0..1 and "
        f"normalised with the mean {description['mean']} and the standard deviation {description['std']} of {channels}"
    )
    if description["data"] != "generated":
        fitted["data_source"] = f"the data set '{description['data']}'; see docs/data_license.txt"
    figures = {name: metrics[name] for name in FIGURES if metrics[name] is not None}
    if figures:
        fitted["eval_metrics"] = figures
    return fitted


def fitted_inference(config: Mapping[str, Any], description: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``inference.json`` as who has only the exported model needs it, without the bundle's ``network.json``.

    Without a colour transform its preprocessing is MONAI alone; with one it needs the bundle's code.
    """
    fitted: dict[str, Any] = json.loads(json.dumps(config))
    colour = description.get("colour_transform")
    fitted.update({key: description[key] for key in ("image_size", "mean", "std")}, colour_transform=colour)
    if colour is None:
        steps = fitted["preprocessing"]["transforms"]
        fitted["preprocessing"]["transforms"] = [step for step in steps if step["_target_"] != COLOUR]
    return fitted


def portable(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's config without what it says of the machine it ran on: no path of it leaves the house.

    Args:
        config: the run's.
        defaults: the bundle's ``train.json``, whose values stand in.
    """
    kept = {key: defaults.get(key) if may_differ(key) else value for key, value in config.items()}
    if any(Path(value).is_absolute() for value in _texts(kept["source"])):
        kept["source"] = defaults["source"]
    return kept


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for own in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(own)


def _colour(description: Mapping[str, Any]) -> str:
    """Say in words what was done to the colours; nothing where nothing was."""
    settings = dict(description.get("colour_transform") or {})
    name = settings.pop("name", None)
    numbers = ", ".join(f"{key} {value}" for key, value in settings.items())
    return "" if name is None else f"before resizing their colours changed by {name} ({numbers}), "


def _value_range(mean: Sequence[float], std: Sequence[float]) -> list[float]:
    """Return the darkest and the brightest value of a normalised picture."""
    pairs = list(zip(mean, std, strict=True))
    return [round(min(-m / s for m, s in pairs), 2), round(max((1 - m) / s for m, s in pairs), 2)]


def _files(root: Path) -> dict[str, bytes]:
    """Return the bundle's own files by name; data, runs, models, caches and hidden files are none of them."""
    paths = [root / "LICENSE", *(path for folder in FOLDERS for path in (root / folder).rglob("*"))]
    names = [path.relative_to(root) for path in paths if path.is_file()]
    return {
        name.as_posix(): (root / name).read_bytes()
        for name in names
        if not any(part.startswith(".") or part == "__pycache__" for part in name.parts)
    }


def _model(run: Path, root: Path) -> dict[str, bytes]:
    """Return the run's model, and the files that say what it is."""
    load_classifier(run)  # refuses what could not be loaded where the zip is unpacked
    description = read_description(str(run / DESCRIPTION))
    metrics = _read(run / "metrics.json")
    if metrics["classes"] != class_names(description):
        raise UserError(f"the run in {run} is not finished: its model and its metrics.json differ; finish it first")
    inference = _read(root / INFERENCE)
    if spatial_dims(description["backbone"]) == 3:
        inference.update(_read(root / VOLUMES))
    inference = fitted_inference(inference, description)
    metadata = fitted_metadata(_read(root / METADATA), description, metrics)
    return {
        f"models/{CONFIG}": _json(portable(read_run_config(run), _read(root / TRAIN))),
        f"models/{WEIGHTS}": (run / WEIGHTS).read_bytes(),
        f"models/{DESCRIPTION}": (run / DESCRIPTION).read_bytes(),
        INFERENCE: _json(inference),
        METADATA: _json(metadata),
    }


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path} ({error}): give the output folder of a finished run") from error
    return content


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=4) + "\n").encode()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m scripts.commands.package", description=__doc__)
    parser.add_argument("run", metavar="RUN_DIR", type=Path, help="output folder of a finished run")
    parser.add_argument("zip", metavar="ZIP_FILE", type=Path, help="the file to write; one that is there is replaced")
    given = parser.parse_args(arguments)
    return end(lambda: package(given.run, given.zip, Path(bundle_root())))


if __name__ == "__main__":
    sys.exit(main())
