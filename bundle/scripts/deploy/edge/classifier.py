"""An exported model and what it says of an image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnxruntime

from scripts.deploy.edge.checksum import is_whole
from scripts.imaging.decoding.kinds import kind_of
from scripts.imaging.decoding.rgb import file_rgb
from scripts.imaging.decoding.scans import make_selection
from scripts.imaging.image_spec import ImageSpec
from scripts.imaging.pixels import network_input
from scripts.model.decisions.outliers import OutlierRule
from scripts.model.decisions.results import ModelIdentity
from scripts.utils.errors import UserError

METADATA = "classifier"
"""The key under which an exported model says what it is and how images are made its input, as JSON."""


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
        content = Path(path).read_bytes()
        if not is_whole(content):
            raise UserError(f"{path} is not as configs/export.json wrote it, its checksum differs: export it again")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        try:
            self.session = onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])
            model: dict[str, Any] = json.loads(self.session.get_modelmeta().custom_metadata_map[METADATA])
            self.image = ImageSpec(**model["image"])
            self.selection = make_selection(self.image.shown())
            known = ("name", "version", "weights_sha256", "temperature", "threshold")
            own = {key: model["model"][key] for key in known}
            outliers = OutlierRule.read(model.get("outliers"))
            if "thresholds" in model["model"]:
                own["thresholds"] = tuple(map(float, model["model"]["thresholds"].values()))
            self.identity = ModelIdentity(classes=tuple(map(str, model["classes"])), outliers=outliers, **own)
            taken, given = self.session.get_inputs()[0].shape, self.session.get_outputs()[0].shape
            if taken[1:] != list(self.image.shape) or given[1:] != [len(self.identity.classes)]:
                raise ValueError("what it says of itself is not true of its network")
        except UserError:
            raise
        except Exception as error:  # ONNX Runtime raises a dozen kinds for a file that is not its own
            raise UserError(f"{path} is no model that configs/export.json wrote: export it again") from error

    def pictures(self, file: str) -> list[str]:
        """Return references to the pictures of a file that count; of most files it is one."""
        return [file] if kind_of(file) is None else self.selection.references(file)[0]

    def classify(self, reference: str) -> dict[str, Any]:
        """Classify one picture.

        Args:
            reference: one of :meth:`pictures`.

        Returns:
            ``predicted_class``, ``indeterminate``, ``doubt`` (why), ``distance``, ``probabilities`` by class, where an
            image may carry several ``findings``, and ``model``, as every other door gives.

        Raises:
            ImageRefused: with the reason.
        """
        image = network_input(file_rgb(reference), self.image)
        (logits,) = self.session.run(None, {self.session.get_inputs()[0].name: image[None]})
        result = self.identity.judge(self.identity.probabilities(logits[0]), image)
        return {**result.record(), "model": result.model.record()}
