"""Which images of a folder are classified, and which are refused, by name."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events
from monai.data import Dataset

from scripts.decoding.presentation import split_reference
from scripts.decoding.reasons import ImageRefused
from scripts.decoding.scans import is_scan, make_selection
from scripts.errors import UserError
from scripts.inference.classification import refusal_in
from scripts.inference.folder import REFUSED, ResultFolder
from scripts.transforms.reader import RGBReader, read_rgb

IMAGE_SUFFIXES = RGBReader.suffixes
WORKERS = 4


def find_images(
    folder: str, suffixes: Sequence[str] = IMAGE_SUFFIXES, presentation: Mapping[str, Any] | None = None
) -> list[dict[str, str]]:
    """List the images in a folder and the folders within, sorted by name; hidden files are left out.

    Args:
        folder: may be missing, which :func:`require_images` complains of.
        suffixes: how the names of images end, in lower case.
        presentation: of DICOM and NIfTI files, which are recognised by their content; ``None``: they are left out.

    Returns:
        ``{"image": reference, "name": path from the folder on, with slashes}`` for each; of a file with several
        pictures, the name goes on with ``#`` and which one it is.
    """
    selection = None if presentation is None else make_selection(presentation)
    root = Path(folder)
    found: list[Path] = []
    for parent, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in files if not name.startswith(".")]
    named: list[dict[str, str]] = []
    for path in sorted(found, key=lambda path: path.relative_to(root).as_posix()):
        name = path.relative_to(root).as_posix()
        if selection is not None and is_scan(str(path)):
            references, _ = selection.references(str(path))
            named += [{"image": image, "name": name + _picture(image)} for image in references]
        elif name.lower().endswith(tuple(suffixes)):
            named.append({"image": str(path), "name": name})
    return named


def _picture(reference: str) -> str:
    picture = split_reference(reference)[1]
    return f"#{picture}" if picture else ""


def require_images(items: Sequence[Any], folder: str, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> None:
    """Stop when there is nothing to classify.

    Args:
        items: what was found.
        folder: where it was searched for.
        suffixes: how the names of images end.

    Raises:
        UserError: says which folder is missing or empty.
    """
    if not Path(folder).is_dir():
        raise UserError(f"image folder {folder} is missing: give one that exists (key 'dataset_dir')")
    if not items:
        raise UserError(
            f"image folder {folder} has no images: put some there ({', '.join(suffixes)}), "
            "or give another one (key 'dataset_dir'); DICOM and NIfTI are found with configs/scans.json"
        )


class ScreeningHandler:
    """Decode every image before the first is classified; what cannot be taken is left out and written down.

    The rules are those of training.

    Args:
        dataset: its ``data`` are items with ``image`` and ``name``; refused ones are taken out.
        results: where refusals go; begun here.
        read: decodes one image, as in training, or raises a :class:`scripts.errors.UserError`.
    """

    def __init__(self, dataset: Dataset, results: ResultFolder, read: Callable[[str], np.ndarray] = read_rgb) -> None:
        self.dataset = dataset
        self.results = results
        self.read = read

    def attach(self, engine: Engine) -> None:
        """Act when the engine starts."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Screen.

        Raises:
            UserError: when every image is refused.
        """
        items = list(self.dataset.data)
        self.results.start()
        with ThreadPoolExecutor(WORKERS) as pool:
            refusals = list(pool.map(self._refusal, items))
        for item, refusal in zip(items, refusals, strict=True):
            if refusal is not None:
                self.results.put(item["name"], item["image"], refusal)
        self.dataset.data = [item for item, refusal in zip(items, refusals, strict=True) if refusal is None]
        if not self.dataset.data:
            self.results.finish()
            raise UserError(f"all {len(items)} images are refused: {self.results.output_dir / REFUSED} says why")
        engine.state.epoch_length = len(engine.data_loader)  # type: ignore[attr-defined]

    def _refusal(self, item: dict[str, str]) -> ImageRefused | None:
        try:
            self.read(item["image"])
        except UserError as error:
            return refusal_in(error)
        return None
