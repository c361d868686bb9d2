"""Write what the network says of each image, in a run of ``inference.json``."""

from __future__ import annotations

import logging
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.data import Dataset

from scripts.deploy.inference.classification import judged
from scripts.deploy.inference.folder import ResultFolder
from scripts.utils.words import counted


class PredictionWriter:
    """Hand what the network says of each image to the folder of results.

    Args:
        results: where it goes; begun by :class:`scripts.deploy.inference.ScreeningHandler`.
        dataset: its ``data`` are items with ``image`` and ``name``.
    """

    def __init__(self, results: ResultFolder, dataset: Dataset) -> None:
        self.results = results
        self.dataset = dataset
        self.references: dict[str, str] = {}
        self.logger = logging.getLogger(__name__)

    def attach(self, engine: Engine) -> None:
        """Take each batch once it is postprocessed, finish at the end."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.take)
        engine.add_event_handler(Events.COMPLETED, self.finish)

    def start(self) -> None:
        """Note the reference of each image: its item has the pixels in that place later."""
        self.references = {item["name"]: item["image"] for item in self.dataset.data}

    def take(self, engine: Engine) -> None:
        """Take a decollated batch: items with ``name`` and ``image``, outputs with ``pred``, the probabilities [C].

        Raises:
            UserError: when the folder cannot be written.
        """
        items: Any = engine.state.batch
        outputs: Any = engine.state.output
        for item, output in zip(items, outputs, strict=True):
            image = torch.as_tensor(item["image"]).cpu().numpy()
            name, said = item["name"], judged(self.results.model, output["pred"].tolist(), image)
            self.results.put(name, self.references[name], said)

    def finish(self) -> None:
        """Write the lists.

        Raises:
            UserError: when the folder cannot be written.
        """
        self.results.finish()
        said = counted(len(self.results.results), "image")
        self.logger.info("Classified %s: %s", said, self.results.output_dir)
