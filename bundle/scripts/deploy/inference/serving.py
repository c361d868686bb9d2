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
    while another version is loaded and after. The version that was served before stays loaded, so that going back to it
    takes no longer than an answer.

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
        self._loaded: dict[str, Loaded] = {}
        self.current()

    def current(self) -> Loaded:
        """Return what is loaded of the folder that is pointed to; it is loaded where that is another than before.

        Raises:
            UserError: as ``load`` does.
        """
        with self._lock:
            folder = os.path.realpath(self.folder)
            loaded = self._loaded[folder] if folder in self._loaded else self.load(folder)
            others = [own for own in self._loaded if own != folder]
            self._loaded = {**{own: self._loaded[own] for own in others[-1:]}, folder: loaded}
            return loaded
