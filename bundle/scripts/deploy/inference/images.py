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

from scripts.deploy.inference.classification import refusal_in
from scripts.deploy.inference.folder import REFUSED, ResultFolder
from scripts.imaging.decoding.kinds import PICTURES
from scripts.imaging.decoding.presentation import split_reference
from scripts.imaging.decoding.reasons import ImageRefused
from scripts.imaging.decoding.scans import is_scan, make_selection
from scripts.imaging.transforms.reader import read_rgb
from scripts.utils.errors import UserError
from scripts.utils.files import plain_name, require_folder

WORKERS = 4


def find_images(folder: str, presentation: Mapping[str, Any] | None = None) -> list[dict[str, str]]:
    r"""List the files in a folder and the folders within, sorted by name; hidden ones are left out.

    What a file is, is known by its content, when it is read: what is no image is refused then, and named. So is a
    folder that cannot be opened, which is listed like a file.

    Args:
        folder: may be missing, which :func:`require_images` complains of.
        presentation: of DICOM and NIfTI files; see :func:`scripts.imaging.decoding.scans.make_selection`.

    Returns:
        ``{"image": reference, "name": path from the folder on, with slashes}`` for each; of a file with several
        pictures, the name goes on with ``#`` and which one it is. A byte of a name that is no UTF-8 is ``\udcNN``.
    """
    selection = make_selection(presentation or {})
    root = Path(folder)
    found: list[Path] = []
    closed: list[Path] = []
    for parent, folders, files in os.walk(root, onerror=lambda error: closed.append(Path(error.filename))):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in files if not name.startswith(".")]
    named: list[dict[str, str]] = []
    for path in sorted(
        [*found, *(path for path in closed if path != root)], key=lambda path: path.relative_to(root).as_posix()
    ):
        name = plain_name(path.relative_to(root).as_posix())
        references = selection.references(str(path))[0] if is_scan(str(path)) else [str(path)]
        named += [{"image": image, "name": name + _picture(image)} for image in references]
    return named


def _picture(reference: str) -> str:
    picture = split_reference(reference)[1]
    return f"#{picture}" if picture else ""


def require_images(items: Sequence[Any], folder: str) -> None:
    """Stop when there is nothing to classify.

    Args:
        items: what was found.
        folder: where it was searched for.

    Raises:
        UserError: says which folder is missing or empty.
    """
    require_folder(folder, "image folder", "key 'dataset_dir'")
    if not items:
        raise UserError(
            f"image folder {folder} has no images: put some there ({', '.join(PICTURES)}, DICOM, NIfTI), or give "
            "another one (key 'dataset_dir')"
        )


class ScreeningHandler:
    """Decode every image before the first is classified; what cannot be taken is left out and written down.

    The rules are those of training.

    Args:
        dataset: its ``data`` are items with ``image`` and ``name``; refused ones are taken out.
        results: where refusals go; begun here.
        read: decodes one image, as in training, or raises a :class:`scripts.utils.errors.UserError`.
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
