"""An exported model and what it says of an image."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from scripts.decoding.kinds import kind_of
from scripts.decoding.pictures import picture_rgb
from scripts.decoding.presentation import split_reference
from scripts.decoding.reasons import ImageRefused, Reason
from scripts.decoding.scans import make_selection, read_scan_rgb
from scripts.edge.pixels import prepare
from scripts.errors import UserError

METADATA = "classifier"
"""The key under which an exported model says what it is and how images are made its input, as JSON."""
DIGITS = 6


class EdgeClassifier:
    """Classifies images one at a time.

    Args:
        path: an ONNX file that ``configs/export.json`` wrote; all that is needed is in it.
        threads: of the network; 0: as many as there are cores.

    Raises:
        UserError: when the file is missing, broken, or not from there.
    """

    def __init__(self, path: str | Path, threads: int = 0) -> None:
        if not Path(path).is_file():
            raise UserError(f"no exported model at {path}: export one (configs/export.json), or give its file")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        try:
            self.session = onnxruntime.InferenceSession(os.fspath(path), options, ["CPUExecutionProvider"])
            self.model: dict[str, Any] = json.loads(self.session.get_modelmeta().custom_metadata_map[METADATA])
        except Exception as error:  # ONNX Runtime raises a dozen kinds for a file that is not its own
            raise UserError(f"{path} is no model that configs/export.json wrote: export it again") from error
        self.selection = make_selection(self.model["presentation"])
        self.mean, self.std = (np.array(self.model[name], np.float32) for name in ("mean", "std"))

    def pictures(self, file: str) -> list[str]:
        """Return references to the pictures of a file that count; of most files it is one."""
        return [file] if kind_of(file) is None else self.selection.references(file)[0]

    def classify(self, reference: str) -> dict[str, Any]:
        """Classify one picture.

        Args:
            reference: one of :meth:`pictures`.

        Returns:
            ``predicted_class``, ``indeterminate``, ``probabilities`` by class and ``model``, as every other door gives.

        Raises:
            ImageRefused: with the reason.
        """
        scan = kind_of(split_reference(reference)[0]) is not None
        picture = read_scan_rgb(reference) if scan else picture_rgb(reference)
        image = prepare(picture, self.model["image_size"], self.mean, self.std)
        (logits,) = self.session.run(None, {self.session.get_inputs()[0].name: image[None]})
        return self._result(np.asarray(logits[0], np.float64))

    def _result(self, logits: np.ndarray) -> dict[str, Any]:
        if not np.isfinite(logits).all():
            message = "the network's answer is no number: look for what is odd in the image"
            raise ImageRefused(message, Reason.NON_FINITE)
        identity = self.model["model"]
        scores = np.exp((logits - logits.max()) / (identity["temperature"] or 1.0))
        values = scores / scores.sum()
        best, threshold = int(values.argmax()), identity["threshold"]
        return {
            "predicted_class": self.model["classes"][best],
            "indeterminate": threshold is not None and bool(values[best] < threshold),
            "probabilities": {
                name: round(float(value), DIGITS) for name, value in zip(self.model["classes"], values, strict=True)
            },
            "model": identity,
        }
