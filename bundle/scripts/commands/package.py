"""Write a finished run as a MONAI bundle in a zip file."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from scripts.imaging.image_spec import ImageSpec
from scripts.imaging.transforms.preprocessing import monai_preprocessing
from scripts.learning.run_config import may_differ, read_run_config
from scripts.model.description import ADVICE
from scripts.model.folder import TrainedModel
from scripts.model.networks.classifier import NETWORK_KEYS
from scripts.utils.errors import UserError
from scripts.utils.files import CONFIG, WEIGHTS, write_atomically
from scripts.utils.sums import SUMS, read_checked, sums_of

FOLDERS = ("configs", "docs", "scripts")
METADATA = "configs/metadata.json"
TRAIN = "configs/train.json"
INFERENCE = "configs/inference.json"
TORCHSCRIPT = "configs/torchscript.json"
DEPLOYED = (METADATA, INFERENCE, "configs/node.json", "configs/service.json", "configs/keys.yaml")
LEARNING = (
    *("compare", "contribute", "deidentify", "examine", "experiments", "forget", "joint_ridge", "learn", "package"),
    *("pictures", "plan", "pretrain", "report", "reporting", "search", "start", "suspects", "take_over", "track"),
    "train",
)
"""Commands that train, or read what trainings write."""
LEFT_OUT = "for deployment alone: scripts/learning, configs/train.json and what belongs to them are left out"
FIGURES = ("final_accuracy", "average_accuracy", "final_mean_class_recall", "average_mean_class_recall")
DATE = (1980, 1, 1, 0, 0, 0)  # the earliest a zip can hold: the same run gives the same bytes
MODE = 0o644 << 16


def package(run: Path, target: Path, root: Path, deploy: bool = False) -> str:
    """Write the zip: the bundle's code and configs, the run's model, and metadata that fits that model.

    Args:
        run: a run's folder.
        target: the zip file; the folder in it is called like the file, without ``.zip``.
        root: the bundle's folder.
        deploy: leave out what only learning needs.

    Returns:
        What was done, in one line.

    Raises:
        UserError: when the folder holds no finished run, or the file cannot be written.
    """
    if target.suffix != ".zip":
        raise UserError(f"{target} is no zip file: give a name that ends in .zip")
    if not run.is_dir():
        raise UserError(f"run folder {run} is missing: give the output folder of a finished run")
    content = {name: data for name, data in _files(root).items() if not (deploy and is_of_learning(name))}
    content |= _model(run, root, deploy)

    def write(file: BinaryIO) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            for name, data in sorted(content.items()):
                entry = zipfile.ZipInfo(f"{target.stem}/{name}", DATE)
                entry.external_attr = MODE
                entry.compress_type = zipfile.ZIP_STORED if name.endswith(WEIGHTS) else zipfile.ZIP_DEFLATED
                archive.writestr(entry, data)

    write_atomically(target, write)
    return f"{target}: the bundle with the model of {run}, {target.stat().st_size / 2**20:.1f} MiB."


def torchscript_config(trained: TrainedModel, inference: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config that ``ckpt_export`` puts into a TorchScript file, whose readers have MONAI alone.

    Args:
        trained: the model.
        inference: the bundle's ``inference.json``.
    """
    described = {key: trained.description[key] for key in (*NETWORK_KEYS, "image")}
    network = {"_target_": "scripts.model.networks.classifier_from", "description": described}
    several = trained.identity.thresholds is not None
    activation = {"other": "$lambda scores: scores.clip(0, 1)"} if several else {"softmax": True}
    return {
        "network_def": network,
        "preprocessing": monai_preprocessing(trained.image),
        "inferer": inference["inferer"],
        "postprocessing": {"_target_": "Activationsd", "keys": "pred", **activation},
    }


def is_of_learning(name: str) -> bool:
    """Say whether a file of the bundle is left out where it is only deployed."""
    parts = Path(name).parts
    if parts[0] == "configs":
        return name.endswith((".json", ".yaml")) and name not in DEPLOYED
    return parts[:2] == ("scripts", "learning") or (
        parts[:2] == ("scripts", "commands") and parts[2].removesuffix(".py") in LEARNING
    )


def fitted_metadata(metadata: Mapping[str, Any], trained: TrainedModel, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``metadata.json`` as it is true of a trained network.

    Args:
        metadata: the bundle's own, of the main job.
        trained: the model.
        metrics: the run's ``metrics.json``; figures that were not measured are left out.
    """
    classes, spec = trained.identity.classes, trained.image
    fitted: dict[str, Any] = json.loads(json.dumps(metadata))
    tensors = fitted["network_data_format"]
    image, prediction = tensors["inputs"]["image"], tensors["outputs"]["pred"]
    image["spatial_shape"] = list(spec.shape[1:])
    image["value_range"] = _value_range(spec.mean, spec.std)
    prediction["num_channels"] = len(classes)
    prediction["channel_def"] = {str(number): name for number, name in enumerate(classes)}
    kind, channels = "RGB images", "red, green and blue"
    if spec.dimensions == 3:
        kind, channels, fitted["data_type"] = "volumes", "all voxels", "npy"
        image.update(format="grey", num_channels=1, channel_def={"0": "intensity"})
    fitted["image_classes"] = (
        f"{kind} of {' x '.join(map(str, image['spatial_shape']))} pixels, {_colour(spec)}scaled to 0..1 and "
        f"normalised with the mean {list(spec.mean)} and the standard deviation {list(spec.std)} of {channels}"
    )
    data = trained.description.get("data")
    if data != "generated":
        fitted["data_source"] = f"the data set '{data}'; see docs/data_license.txt"
    figures = {name: metrics[name] for name in FIGURES if metrics[name] is not None}
    if figures:
        fitted["eval_metrics"] = figures
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


def _colour(spec: ImageSpec) -> str:
    """Say in words what was done to the colours; nothing where nothing was."""
    settings = dict(spec.colour or {})
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


def _model(run: Path, root: Path, deploy: bool) -> dict[str, bytes]:
    """Return the run's model, and the files that say what it is."""
    trained = TrainedModel.open(run)  # refuses what could not be loaded where the zip is unpacked
    metrics = _read(run / "metrics.json")
    if metrics["classes"] != list(trained.identity.classes):
        raise UserError(f"the run in {run} is not finished: its model and its metrics.json differ; finish it first")
    metadata = fitted_metadata(_read(root / METADATA), trained, metrics)
    vouched = read_checked(run, ADVICE)
    files = {f"models/{name}": content for name, content in {**vouched, SUMS: sums_of(vouched)}.items()}
    files[TORCHSCRIPT] = _json(torchscript_config(trained, _read(root / INFERENCE)))
    if deploy:
        return {**files, METADATA: _json({**metadata, "contents": LEFT_OUT})}
    config = portable(read_run_config(run), _read(root / TRAIN))
    return {**files, f"models/{CONFIG}": _json(config), METADATA: _json(metadata)}


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path} ({error}): give the output folder of a finished run") from error
    return content


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=4) + "\n").encode()
