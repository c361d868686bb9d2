"""A trained model's folder: what it is (``network.json``), its weights (``model.pt``), and checksums of both."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scripts.imaging.image_spec import ImageSpec
from scripts.model.decisions import ModelIdentity, OutlierRule
from scripts.model.description import ADVICE, class_names, image_of, name_of, no_model, parse_description
from scripts.model.networks.adapters import chosen_by_majority
from scripts.model.networks.classifier import Classifier, classifier_from
from scripts.utils.errors import UserError
from scripts.utils.files import DESCRIPTION, VERSION, WEIGHTS, write_atomically
from scripts.utils.json_files import check_json
from scripts.utils.sums import SUMS, read_checked, sha256, sums_of
from scripts.utils.words import counted

TASK = "task_"
"""How the folders of a run start that hold the model after each task."""


@dataclass(frozen=True)
class TrainedModel:
    """A trained model, read once and checked: what every door serves.

    Attributes:
        folder: what it was read from.
        description: its ``network.json``.
        identity: which model it is, and how it decides.
        image: how it sees an image.
        network: in evaluation mode, on the CPU.
    """

    folder: Path
    description: Mapping[str, Any]
    identity: ModelIdentity
    image: ImageSpec
    network: Classifier

    @classmethod
    def open(
        cls,
        model: str | Path,
        task: int | None = None,
        temperature: float | None = None,
        threshold: float | None = None,
    ) -> TrainedModel:
        """Read a folder; each of its files is compared with its checksum first.

        Args:
            model: see :func:`model_folder`.
            task: as the model.
            temperature: see :class:`scripts.model.decisions.ModelIdentity`; ``None``: what ``network.json`` says.
            threshold: as the temperature.

        Raises:
            UserError: when there is no model, a file is missing or was changed, or a file is not what it should be.
        """
        folder = Path(model_folder(str(model), task))
        files = read_checked(folder, ADVICE)
        if not {WEIGHTS, DESCRIPTION} <= files.keys():
            raise UserError(f"{folder / SUMS} does not list {WEIGHTS} and {DESCRIPTION}: {ADVICE}")
        description = parse_description(files[DESCRIPTION], folder / DESCRIPTION)
        if chosen_by_majority(description["adapter"]):
            raise UserError(
                f"the model in {folder} answers by the majority of the images beside an image, which is for comparison "
                "alone: train it with --adapter#choice image"
            )
        identity = ModelIdentity(
            name=name_of(description),
            version=_version(files, folder) or f"{TASK}{len(description['tasks']) - 1}",
            weights_sha256=sha256(files[WEIGHTS]),
            classes=tuple(class_names(description)),
            temperature=description.get("temperature") if temperature is None else temperature,
            threshold=description.get("threshold") if threshold is None else threshold,
            outliers=OutlierRule.read(description.get("outliers")),
            thresholds=tuple(description["thresholds"]) if "thresholds" in description else None,
        )
        return cls(folder, description, identity, image_of(description), _network(description, files[WEIGHTS], folder))

    def __str__(self) -> str:
        """Say in one line which model it is."""
        tasks = self.description["tasks"]
        digest = self.identity.weights_sha256[:12]
        learnt = f"{counted(len(tasks), 'task')}, the last {tasks[-1]['name']}"
        return f"Model: {self.folder.absolute()}, {learnt}, sha256 {digest}."

    def say(self) -> None:
        """Log, last of all, which model was used."""
        logging.getLogger(__name__).info("%s", self)


def write_model(folder: Path, weights: Mapping[str, Tensor], description: Mapping[str, Any]) -> None:
    """Write a plain state dict, what it takes to rebuild its network, and the list that vouches for both.

    Raises:
        UserError: when the folder cannot be written.
    """
    buffer = io.BytesIO()
    torch.save({key: value.cpu() for key, value in weights.items()}, buffer)
    described = f"{json.dumps(description, indent=4)}\n".encode()
    files = {WEIGHTS: buffer.getvalue(), DESCRIPTION: described}
    for name, content in {**files, SUMS: sums_of(files)}.items():
        write_atomically(folder / name, content)


def model_folder(model: str, task: int | None = None) -> str:
    """Return the folder with ``network.json`` and ``model.pt`` that is meant.

    Args:
        model: a run, one of its ``task_<t>``, a model's folder, or a folder with one such folder in it, as MONAI Deploy
            lays it.
        task: of a run: the model as it was after this task, from 0; ``None``: the last one.

    Raises:
        UserError: when there is no model, none of that task, or more than one; it says which there are.
    """
    folder = Path(model)
    if task is not None:
        numbers = task_numbers(folder)
        if task not in numbers:
            present = f"choose among {', '.join(map(str, numbers))}" if numbers else "give a run (--model RUN)"
            raise UserError(f"{folder} has no model of task {task}: {present} (key 'task')")
        return str(folder / f"{TASK}{task}")
    if (folder / DESCRIPTION).is_file():
        return str(folder)
    within = [path.parent for path in sorted(folder.glob(f"*/{DESCRIPTION}"))]
    if len(within) > 1:
        names = ", ".join(path.name for path in within)
        raise UserError(f"{folder} holds several models: give one of {names} with its folder (--model)")
    if not within:
        raise no_model(folder)
    return str(within[0])


def task_numbers(run: Path) -> list[int]:
    """Return of which tasks, from 0, a run has the model."""
    return sorted(int(file.parent.name.removeprefix(TASK)) for file in run.glob(f"{TASK}[0-9]*/{WEIGHTS}"))


def _version(files: Mapping[str, bytes], folder: Path) -> str | None:
    """Return the number in the store of versions; ``None`` elsewhere."""
    if VERSION not in files:
        return None
    return str(
        check_json(files[VERSION], {"type": "object", "required": ["number"]}, folder / VERSION, ADVICE)["number"]
    )


def _network(description: Mapping[str, Any], weights: bytes, folder: Path) -> Classifier:
    """Build the network that is described, with its weights; no code of the file is run."""
    network, file = classifier_from(description), folder / WEIGHTS
    try:
        state = torch.load(io.BytesIO(weights), weights_only=True, map_location="cpu")
    except Exception as error:  # torch raises a dozen kinds for a file that is not its own
        reason = str(error).splitlines()[0]
        raise UserError(f"{file} cannot be read as a model ({reason}): {ADVICE}") from error
    try:
        network.load_state_dict(state)
    except (RuntimeError, TypeError) as error:
        raise UserError(
            f"the weights in {file} are not those of the network that {DESCRIPTION} describes: "
            "take both files from the same run"
        ) from error
    return network.eval()
