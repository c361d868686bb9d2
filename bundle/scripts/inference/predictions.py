"""Write the class probabilities of each image as a table and as JSON."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from scripts.files import write_atomically, write_csv

TABLE = "predictions.csv"
RECORDS = "predictions.json"


class PredictionWriter:
    """Gather what the network says of each image and write it when the engine is done.

    ``predictions.csv`` has the columns image, predicted class and one a class; ``predictions.json`` holds the classes
    and, for each image, its name, predicted class and probabilities by class. Both are in the order of the images.

    Args:
        output_dir: where both files go.
        classes: names, in the order of the network's outputs.
    """

    def __init__(self, output_dir: str, classes: Sequence[str]) -> None:
        self.output_dir = Path(output_dir)
        self.classes = list(classes)
        self.rows: list[tuple[str, list[float]]] = []
        self.logger = logging.getLogger(__name__)

    def attach(self, engine: Engine) -> None:
        """Start afresh, take each batch once it is postprocessed, write at the end."""
        engine.add_event_handler(Events.STARTED, self.rows.clear)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.take)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def take(self, engine: Engine) -> None:
        """Take a decollated batch: items with ``name``, outputs with ``pred``, the probabilities [C]."""
        items: Any = engine.state.batch
        outputs: Any = engine.state.output
        for item, output in zip(items, outputs, strict=True):
            self.rows.append((item["name"], output["pred"].tolist()))

    def write(self) -> None:
        """Write both files.

        Raises:
            UserError: when the folder cannot be written.
        """
        table: list[Sequence[object]] = [["image", "predicted class", *self.classes]]
        records: list[dict[str, object]] = []
        for name, probabilities in self.rows:
            predicted = self.classes[probabilities.index(max(probabilities))]
            table.append([name, predicted, *(f"{value:.6f}" for value in probabilities)])
            by_class = dict(zip(self.classes, probabilities, strict=True))
            records.append({"image": name, "predicted_class": predicted, "probabilities": by_class})
        content = {"classes": self.classes, "images": records}
        write_atomically(self.output_dir / RECORDS, json.dumps(content, indent=4) + "\n")
        write_csv(self.output_dir / TABLE, table)
        self.logger.info("Classified %d images: %s", len(self.rows), self.output_dir / TABLE)
