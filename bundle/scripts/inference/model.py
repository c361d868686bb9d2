"""Load a trained model: ``network.json`` says what the network is, ``model.pt`` holds its weights."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import torch
from ignite.engine import Engine, Events
from torch import nn

from scripts.errors import UserError
from scripts.files import DESCRIPTION, WEIGHTS
from scripts.networks.classifier import Classifier, classifier_from, read_description
from scripts.run_config import no_model

TASK = "task_"
"""How the folders of a run start that hold the model after each task."""


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


def name_model(folder: str) -> None:
    """Say, last of all, which model was used."""
    logging.getLogger(__name__).info("%s", said_of(folder))


def said_of(folder: str) -> str:
    """Return in one line which model a folder has."""
    description = read_description(str(Path(folder) / DESCRIPTION))
    with (Path(folder) / WEIGHTS).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    tasks = description["tasks"]
    return f"Model: {Path(folder).absolute()}, {len(tasks)} tasks, the last {tasks[-1]['name']}, sha256 {digest[:12]}."


def load_weights(network: nn.Module, path: str | Path) -> None:
    """Load a plain state dict, strictly and without running code from the file.

    Args:
        network: takes the weights.
        path: a ``model.pt``.

    Raises:
        UserError: when the file is missing, broken, or of another network.
    """
    file = Path(path)
    if not file.is_file():
        raise no_model(file.parent)
    try:
        state = torch.load(file, weights_only=True, map_location="cpu")
    except Exception as error:  # torch raises a dozen kinds for a file that is not its own
        reason = str(error).splitlines()[0]
        raise UserError(f"{file} cannot be read as a model ({reason}): restore it or train again") from error
    try:
        network.load_state_dict(state)
    except (RuntimeError, TypeError) as error:
        raise UserError(
            f"the weights in {file} are not those of the network that {DESCRIPTION} describes: "
            "take both files from the same run"
        ) from error


def load_classifier(folder: str | Path) -> Classifier:
    """Build the network that a folder's ``network.json`` describes, with the weights of its ``model.pt``.

    Args:
        folder: a run's folder, one of its ``task_<t>``, or ``models``.

    Returns:
        The network, in evaluation mode, on the CPU.

    Raises:
        UserError: as :func:`load_weights` and :func:`scripts.networks.read_description`.
    """
    network = classifier_from(read_description(str(Path(folder) / DESCRIPTION)))
    load_weights(network, Path(folder) / WEIGHTS)
    return network.eval()


class WeightsLoader:
    """Load the weights when the engine starts, so that the network can be built without them.

    Args:
        network: takes the weights.
        path: a ``model.pt``; see :func:`load_weights`.
    """

    def __init__(self, network: nn.Module, path: str) -> None:
        self.network = network
        self.path = path

    def attach(self, engine: Engine) -> None:
        """Act when the engine starts."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self) -> None:
        """Load."""
        load_weights(self.network, self.path)
