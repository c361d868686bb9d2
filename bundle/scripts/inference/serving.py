"""Serve the model that a folder points to now: a promotion takes effect at the next image."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from threading import Lock

from scripts.inference.classification import ImageClassifier


class ServedClassifier:
    """The classifier of a folder that may be a link, as ``promoted`` of a store of versions is.

    An answer comes whole from one version: who asks takes :meth:`current` once an image. What was taken goes on working
    while another version is loaded and after.

    Args:
        models_dir: a trained model's folder, or a link to one.
        load: loads the model of a folder.

    Raises:
        UserError: as ``load`` does.
    """

    def __init__(self, models_dir: str | Path, load: Callable[[str], ImageClassifier]) -> None:
        self.models_dir = Path(models_dir)
        self.load = load
        self._lock = Lock()
        self._folder = os.path.realpath(models_dir)
        self._classifier = load(self._folder)

    def current(self) -> ImageClassifier:
        """Return the classifier of what the folder points to; loads it where that is another than before.

        Raises:
            UserError: as ``load`` does.
        """
        with self._lock:
            folder = os.path.realpath(self.models_dir)
            if folder != self._folder:
                self._classifier, self._folder = self.load(folder), folder
            return self._classifier
