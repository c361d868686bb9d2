"""Load a trained model: ``network.json`` says what the network is, ``model.pt`` holds its weights."""

from __future__ import annotations

from pathlib import Path

import torch
from ignite.engine import Engine, Events
from torch import nn

from scripts.errors import UserError
from scripts.files import DESCRIPTION, WEIGHTS
from scripts.networks.classifier import Classifier, classifier_from, read_description


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
        raise UserError(f"no trained model at {file}: train first, or point 'models_dir' at a trained model")
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
