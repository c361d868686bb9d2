"""Serve the model that a folder points to now: a promotion takes effect at the next image."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Generic, TypeVar

Loaded = TypeVar("Loaded")


class Served(Generic[Loaded]):
    """What is loaded of a model's folder, which may be a link, as ``promoted`` of a store of versions is.

    An answer comes whole from one version: who asks takes :meth:`current` once an image. What was taken goes on working
    while another version is loaded and after.

    Args:
        folder: a trained model's folder, or a link to one.
        load: loads what answers, of a folder.

    Raises:
        UserError: as ``load`` does.
    """

    def __init__(self, folder: str | Path, load: Callable[[str], Loaded]) -> None:
        self.folder = Path(folder)
        self.load = load
        self._lock = Lock()
        self._folder = os.path.realpath(folder)
        self._loaded = load(self._folder)

    def current(self) -> Loaded:
        """Return what is loaded of the folder that is pointed to; it is loaded where that is another than before.

        Raises:
            UserError: as ``load`` does.
        """
        with self._lock:
            folder = os.path.realpath(self.folder)
            if folder != self._folder:
                self._loaded, self._folder = self.load(folder), folder
            return self._loaded
