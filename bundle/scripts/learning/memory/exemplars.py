"""The exemplar memory: a few images a class, kept as paths or as copies apart from every checkpoint."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from scripts.imaging.decoding.scans import is_scan
from scripts.imaging.transforms.reader import is_volume, read_rgb, read_volume
from scripts.imaging.transforms.scans import file_of
from scripts.learning.memory.selection import check_selection, select
from scripts.learning.sources.source import Item
from scripts.utils.errors import UserError
from scripts.utils.files import write_atomically

PRIVATE = 0o600
EXEMPLARS = "exemplars"
"""Where a run keeps its copies."""


def image_bytes(image: str) -> bytes:
    """Return an image as a file's bytes: the file itself, or a lossless copy of what stands among other things.

    That is an npz entry, and DICOM and NIfTI files, whose headers may name the patient: a PNG, of a volume an npy file.
    """
    if not _is_part(image):
        return Path(image).read_bytes()
    buffer = io.BytesIO()
    if is_volume(image):
        np.save(buffer, read_volume(image))
    else:
        Image.fromarray(read_rgb(image)).save(buffer, format="PNG")
    return buffer.getvalue()


def _is_part(image: str) -> bool:
    return ".npz#" in image or is_scan(image)


def copy_suffix(image: str) -> str:
    """Return how the name of a file with the bytes of `image_bytes` ends."""
    if not _is_part(image):
        return Path(image).suffix.lower()
    return ".npy" if is_volume(image) else ".png"


def stored_bytes(image: str) -> int:
    """Return the bytes that an image takes as it is stored: of its file, of a part of one its pixels."""
    if not _is_part(image):
        return Path(image).stat().st_size
    return read_volume(image).nbytes if is_volume(image) else read_rgb(image).nbytes


def image_file(image: str) -> Path:
    """Return the file that holds an image (the npz for an npz entry)."""
    return Path(file_of(image))


def _found(image: str, folders: Iterable[Path]) -> str:
    """Return where an exemplar is now: the first file of its name in the folders of copies, else where it was."""
    moved = (folder / Path(image).name for folder in folders)
    return next((str(path) for path in moved if path.is_file()), image)


class PathStore:
    """Keep where an image is, not the image: nothing of a patient is copied, and the data set must stay."""

    def keep(self, item: Item) -> Item:
        """Return the item as the memory keeps it."""
        return item

    def sweep(self, kept: Iterable[Item]) -> None:
        """Remove what is not kept any more: nothing, the images belong to the data set."""


class CopyStore:
    """Keep copies of the images in a folder of their own, readable by their owner alone.

    Args:
        folder: where the copies go; made when the first image is kept.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def keep(self, item: Item) -> Item:
        """Copy the image (see :func:`image_bytes`) and return an item that points at the copy."""
        content = image_bytes(item["image"])
        path = self.folder / f"{hashlib.sha256(content).hexdigest()}{copy_suffix(item['image'])}"
        if not path.is_file():
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            own = self.folder / f"{os.getpid()}.tmp"  # the processes of a distributed run copy the same images at once
            write_atomically(own, content)
            os.chmod(own, PRIVATE)
            os.replace(own, path)
        return {"image": str(path), "label": item["label"]}

    def sweep(self, kept: Iterable[Item]) -> None:
        """Remove the copies that are not kept any more."""
        names = {Path(item["image"]).name for item in kept}
        for path in self.folder.glob("*"):
            if path.name not in names:
                path.unlink()


def make_store(exemplars: str, folder: str) -> PathStore | CopyStore:
    """Make the store that ``exemplars`` names.

    Raises:
        UserError: when ``exemplars`` is neither ``paths`` nor ``copies``.
    """
    if exemplars not in ("paths", "copies"):
        raise UserError(f"unknown way to keep exemplars '{exemplars}': choose paths or copies (key 'memory#exemplars')")
    return PathStore() if exemplars == "paths" else CopyStore(folder)


SPACES = ("inference", "newest")


class ExemplarMemory:
    """The images of old tasks that training may see again; of each class the first of its selection order.

    Args:
        size: images over all classes; each class keeps ``size // seen classes``. 0: no memory.
        selection: a name in :data:`scripts.learning.memory.selection.SELECTIONS`.
        per_class: a fixed number of images a class instead of ``size``.
        exemplars: ``paths`` or ``copies``; see :class:`PathStore` and :class:`CopyStore`.
        folder: where copies go.
        previous: folder of the run whose memory is taken over, copies and all; ``None``: there is none.
        space: the selection reads features as ``inference`` computes them, or those of the ``newest`` adapters (as
            published).

    Raises:
        UserError: for an unknown selection, space or way to keep, and a negative size.
    """

    fills_itself = False
    """Whether what it keeps is chosen while a stage trains."""

    def __init__(
        self,
        size: int,
        selection: str = "herding",
        per_class: int | None = None,
        exemplars: str = "paths",
        folder: str = "exemplars",
        previous: str | None = None,
        space: str = "inference",
    ) -> None:
        check_selection(selection)
        if space not in SPACES:
            raise UserError(f"unknown herding space '{space}': choose one of {', '.join(SPACES)} (key 'memory#space')")
        if size < 0 or (per_class is not None and per_class < 0):
            raise UserError(f"a memory of {size if size < 0 else per_class} images: use 0 or more (key 'memory_size')")
        self.size = size
        self.selection = selection
        self.per_class = per_class
        self.space = space
        self.store = make_store(exemplars, folder)
        self.copies = [Path(folder), *([] if previous is None else [Path(previous) / EXEMPLARS])]
        self.classes: dict[int, list[Item]] = {}

    def quota(self, seen: int) -> int:
        """Return how many images each of ``seen`` classes may keep."""
        return self.per_class if self.per_class is not None else self.size // max(seen, 1)

    def check(self, seen: int) -> None:
        """Refuse a memory that is neither empty nor holds an image of every class.

        Raises:
            UserError: with the smallest size that works.
        """
        if self.per_class is None and 0 < self.size < seen:
            raise UserError(
                f"memory_size {self.size} is less than one image for each of {seen} classes: "
                f"use 0 (no memory) or at least {seen}"
            )

    def check_stage(self, name: str, least: int, seen: int) -> None:
        """Refuse a memory that keeps fewer than the ``least`` images of each of ``seen`` classes that a stage needs.

        Raises:
            UserError: with the smallest size that works.
        """
        if self.quota(seen) >= least:
            return
        if self.empty:
            raise UserError(f"stage {name} needs a memory, but memory_size is 0: use at least {least * seen}")
        raise UserError(
            f"stage {name} needs {least} exemplars of each of {seen} classes, but the memory keeps {self.quota(seen)}: "
            f"use a memory_size of at least {least * seen}"
        )

    @property
    def empty(self) -> bool:
        """Whether this memory never keeps an image."""
        return self.quota(1) == 0

    def add(self, items: Iterable[Item], features: Tensor, count: int) -> None:
        """Keep ``count`` images of each new class.

        Args:
            items: images of new classes.
            features: their features, [N, d].
            count: how many a class.
        """
        by_class: dict[int, list[int]] = {}
        listed = list(items)
        for position, item in enumerate(listed):
            by_class.setdefault(item["label"], []).append(position)
        for label, positions in sorted(by_class.items()):
            order = select(self.selection, features[positions], count)
            self.classes[label] = [self.store.keep(listed[positions[index]]) for index in order]

    def reduce(self, count: int) -> None:
        """Keep only the first ``count`` images of every class."""
        self.classes = {label: items[:count] for label, items in self.classes.items()}

    def forget(self, images: Iterable[str]) -> int:
        """Drop every exemplar with the content of one of ``images``; return how many there were."""
        digests = {hashlib.sha256(image_bytes(image)).digest() for image in images}
        dropped = 0
        for label, items in self.classes.items():
            kept = [item for item in items if hashlib.sha256(image_bytes(item["image"])).digest() not in digests]
            dropped += len(items) - len(kept)
            self.classes[label] = kept
        return dropped

    def sweep(self) -> None:
        """Remove copies that are no exemplars any more; to be called once a checkpoint says so."""
        self.store.sweep(self.items())

    def items(self) -> list[Item]:
        """Return all exemplars, class by class, each class in its selection order."""
        return [item for label in sorted(self.classes) for item in self.classes[label]]

    def kept_bytes(self) -> int:
        """Return the bytes of the exemplars as stored (an npz entry, DICOM or NIfTI: of its pixels)."""
        return sum(stored_bytes(item["image"]) for item in self.items())

    def state_dict(self) -> dict[str, Any]:
        """Return which images are kept: references, no pixels."""
        return {"classes": {label: [item["image"] for item in items] for label, items in self.classes.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned; copies come into this memory's own folder.

        Should a run's folder have been moved since, its copies are found where they are now.

        Raises:
            UserError: when an exemplar is gone; the message names it.
        """
        self.classes = {}
        for label, listed in state["classes"].items():
            images = [_found(image, self.copies) for image in listed]
            for image in images:
                if not image_file(image).is_file():
                    raise UserError(
                        f"the exemplar {image} is gone: restore it, or train with --memory#exemplars copies"
                    )
            self.classes[label] = [self.store.keep({"image": image, "label": label}) for image in images]
