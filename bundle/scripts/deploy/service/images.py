"""The images that were sent to be labelled, and their labels: pixels alone, under names that are made here."""

from __future__ import annotations

import copy
import hashlib
import hmac
import io
import json
import re
import threading
import time
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from scripts.deploy.service.problems import Cause, Problem, unknown
from scripts.imaging.decoding.values import Values
from scripts.utils.files import cannot_write, copy_file, hold, secret_key, write_atomically

PICTURE, VOLUME, VALUES, RECORD = ".png", ".npy", ".npz", ".json"
LARGEST_NAME = 64
_PART = r"[^\W\d_][\w .,()+&'-]*"
_NAME = re.compile(f"{_PART}(/{_PART})*")  # none of the signs that a config or a disk takes for more than text
_ID = re.compile(r"[0-9a-f]{32}")


class Tag(StrEnum):
    """Whose a label is: a person's, or a model's that nobody has looked at."""

    FINAL = "final"
    ORIGINAL = "original"


@dataclass(frozen=True)
class Listed:
    """An image in a list of many.

    Attributes:
        image: its name.
        added: when, in seconds since 1970.
        group: what stands for its patient.
        label: the class that a person says it shows; ``None``: nobody has said.
        by: who says so.
        time: since when.
    """

    image: str
    added: int
    group: str
    label: str | None = None
    by: str | None = None
    time: int | None = None


class ImageStore:
    """A folder of images with their labels. Any thread may use it; one process at a time.

    An image is kept as its pixels, without a word of the file that it came in: a PNG, or an npy file of a volume. It is
    called by an HMAC of its pixels, so that the same image sent twice is one. Beside each lies what is known of it,
    every change of its label included, and of a DICOM or NIfTI image its values, for who looks at it.

    Args:
        folder: made where it is missing (mode 0700).

    Raises:
        UserError: the folder cannot be used, or another process uses it.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).absolute()
        self._access = threading.Lock()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.folder.chmod(0o700)
            self._held = hold(self.folder / "lock", "service", "service_dir")
            self._key = secret_key(self.folder / "key")
            self._records = self._read()
            self._listed = {image: _listed(image, record) for image, record in self._records.items()}
        except OSError as error:
            raise cannot_write(self.folder, error) from error

    def _read(self) -> dict[str, dict[str, Any]]:
        found = {path.stem: json.loads(path.read_text()) for path in sorted(self.folder.glob(f"*{RECORD}"))}
        for suffix in (PICTURE, VOLUME, VALUES):
            for path in self.folder.glob(f"*{suffix}"):
                if path.stem not in found:  # its process was killed before it was answered
                    path.unlink()
        return found

    def anonymous(self, text: str) -> str:
        """Return what stands for a patient, a lesion or another name: the same for the same, and no way back."""
        return self._named(text.encode())

    @property
    def key(self) -> bytes:
        """What HMACs are made with."""
        return self._key

    def add(self, pixels: np.ndarray, group: str | None, values: Values | None = None) -> str:
        """Keep an image.

        Args:
            pixels: uint8 ``[H, W, 3]``, or of a volume ``[D, H, W]`` or ``[D, H, W, 1]``.
            group: what must not be on both sides of training and test, such as the patient, already anonymous.
            values: what was measured, where the image's file says so.

        Returns:
            What it is called.
        """
        image = self._named(repr(pixels.shape).encode() + pixels.tobytes())
        suffix, content = encoded(pixels)
        size = {"shape": list(pixels.shape), "checksum": f"SHA256:{hashlib.sha256(content).hexdigest()}"}
        aspect = 1.0 if values is None else values.aspect
        info = {"ts": int(time.time()), "name": f"{image}{suffix}", **size, "group": group or image, "aspect": aspect}
        with self._access:
            if image not in self._records:
                write_atomically(self.folder / f"{image}{suffix}", content)
                if values is not None:
                    write_atomically(self.folder / f"{image}{VALUES}", values.packed())
                self._write(image, {"image": {"ext": suffix, "info": info}, "labels": {}, "history": []})
        return image

    def listed(self) -> list[Listed]:
        """Return all images with their labels."""
        with self._access:
            return [*self._listed.values()]

    def tags(self) -> Counter[Tag]:
        """Return how many images have a label of each kind."""
        with self._access:
            return Counter(Tag(tag) for record in self._records.values() for tag in record["labels"])

    def __len__(self) -> int:
        """Return how many images there are."""
        return len(self._records)

    def values(self, image: str) -> Values | None:
        """Return what was measured, where that is known of an image.

        Raises:
            Problem: there is none of this name.
        """
        self.path(image)
        path = self.folder / f"{image}{VALUES}"
        return Values.unpacked(path.read_bytes()) if path.is_file() else None

    def records(self) -> dict[str, dict[str, Any]]:
        """Return what is known of every image, by name, as MONAI Label's datastore holds it."""
        with self._access:
            return copy.deepcopy(self._records)

    def record(self, image: str) -> dict[str, Any]:
        """Return what is known of an image.

        Raises:
            Problem: there is none of this name.
        """
        with self._access:
            return copy.deepcopy(self._record(image))

    def path(self, image: str) -> Path:
        """Return the file of an image.

        Raises:
            Problem: there is none of this name.
        """
        with self._access:
            return self.folder / self._record(image)["image"]["info"]["name"]

    def paths(self) -> dict[str, Path]:
        """Return the files of all images, by name."""
        with self._access:
            return {image: self.folder / record["image"]["info"]["name"] for image, record in self._records.items()}

    def remove(self, image: str) -> None:
        """Delete an image with its labels.

        Raises:
            Problem: there is none of this name.
        """
        with self._access:
            name = self._record(image)["image"]["info"]["name"]
            for own in (f"{image}{RECORD}", name, f"{image}{VALUES}"):
                (self.folder / own).unlink(missing_ok=True)
            del self._records[image], self._listed[image]

    def label(self, image: str, tag: Tag) -> dict[str, Any]:
        """Return what is said of an image.

        Raises:
            Problem: there is no such image, or no such label.
        """
        labels = self.record(image)["labels"]
        if tag not in labels:
            raise unknown("label")
        return labels[tag]["info"]

    def set_label(self, image: str, tag: Tag, label: str, by: str, **more: Any) -> None:
        """Say what an image shows.

        Args:
            image: its name.
            tag: whose word it is.
            label: the class.
            by: who says it.
            more: what else is kept with it.

        Raises:
            Problem: there is no such image, or the class has a name that cannot be taken.
        """
        require_class_name(label)
        info = {"label": label, "by": by, "ts": int(time.time()), **more}
        with self._access:
            self._record(image)
            self._put(image, tag, info, by, new_change())

    def remove_label(self, image: str, tag: Tag, by: str) -> None:
        """Take a label back.

        Raises:
            Problem: there is no such image, or no such label.
        """
        self.label(image, tag)
        with self._access:
            self._put(image, tag, None, by, new_change())

    def relabel(self, images: Sequence[str], label: str | None, by: str, change: str | None = None) -> str:
        """Say of several images what they show, or take back what was said.

        Args:
            images: their names.
            label: the class; ``None``: none.
            by: who says so.
            change: what the change is called; ``None``: a name is made.

        Returns:
            What the change is called, to be taken back by.

        Raises:
            Problem: one of the images is not here, or the class has a name that cannot be taken; nothing is done.
        """
        if label is not None:
            require_class_name(label)
        info = None if label is None else {"label": label, "by": by, "ts": int(time.time())}
        change = change or new_change()
        with self._access:
            for image in images:
                self._record(image)
            for image in dict.fromkeys(images):
                self._put(image, Tag.FINAL, info, by, change)
        return change

    def author(self, change: str) -> str:
        """Return who made a change of labels that still stands.

        Raises:
            Problem: 404, there is none of this name, or all that it changed was changed again since.
        """
        with self._access:
            return next(iter(self._standing(change).values()))["by"]

    def undo(self, change: str, by: str) -> list[str]:
        """Take a change of labels back, of all images whose label was not changed again since.

        Args:
            change: what it is called.
            by: who takes it back.

        Returns:
            The images.

        Raises:
            Problem: see :meth:`author`.
        """
        with self._access:
            found = self._standing(change)
            undoing = new_change()
            for image, entry in found.items():
                self._put(image, Tag.FINAL, entry["before"], by, undoing, undoes=change)
        return list(found)

    def _standing(self, change: str) -> dict[str, dict[str, Any]]:
        last = {image: _standing(record)[-1:] for image, record in self._records.items() if record.get("history")}
        found = {image: entry[0] for image, entry in last.items() if entry and entry[0]["change"] == change}
        if not found:
            raise unknown("change of labels that still stands")
        return found

    def history(self, image: str) -> list[dict[str, Any]]:
        """Return the changes of an image's label, oldest first: when, by whom, to which class.

        Raises:
            Problem: there is no such image.
        """
        return self.record(image).get("history", [])

    def classes(self) -> dict[str, str]:
        """Return the class of each image that a person has labelled."""
        return {one.image: one.label for one in self.listed() if one.label is not None}

    def close(self) -> None:
        """Let another process use the folder."""
        self._held.close()

    def _named(self, content: bytes) -> str:
        return hmac.new(self._key, content, hashlib.sha256).hexdigest()[:32]

    def _record(self, image: str) -> dict[str, Any]:
        if not _ID.fullmatch(image) or image not in self._records:
            raise unknown("image")
        return self._records[image]

    def _put(
        self, image: str, tag: Tag, info: Mapping[str, Any] | None, by: str, change: str, undoes: str | None = None
    ) -> None:
        """Write a label, or none, and that it was changed; a model's word has no history."""
        record = copy.deepcopy(self._records[image])
        before = record["labels"].pop(str(tag), {"info": None})["info"]
        if info is not None:
            record["labels"][str(tag)] = {"ext": RECORD, "info": dict(info)}
        if tag is Tag.FINAL:
            entry = {"change": change, "undoes": undoes, "before": before, "by": by, "ts": int(time.time())}
            record.setdefault("history", []).append({**entry, "label": None if info is None else info["label"]})
        self._write(image, record)

    def _write(self, image: str, record: Mapping[str, Any]) -> None:
        write_atomically(self.folder / f"{image}{RECORD}", json.dumps(record, indent=1) + "\n")
        self._records[image] = dict(record)
        self._listed[image] = _listed(image, record)


def copy_images(folder: Path, target: Path) -> None:
    """Copy images with what is known of each, without the key; a service may be at work.

    Args:
        folder: of an :class:`ImageStore`.
        target: is made.

    Raises:
        OSError: something cannot be copied.
    """
    target.mkdir(parents=True, mode=0o700)
    for record in sorted(folder.glob(f"[!.]*{RECORD}")):  # those that come later have come after the backup
        try:
            copy_file(record, target / record.name)
            picture = json.loads((target / record.name).read_bytes())["image"]["info"]["name"]
            copy_file(folder / picture, target / picture)
        except FileNotFoundError:  # it was deleted meanwhile
            (target / record.name).unlink(missing_ok=True)
            continue
        with suppress(FileNotFoundError):
            copy_file(folder / f"{record.stem}{VALUES}", target / f"{record.stem}{VALUES}")


def new_change() -> str:
    """Return a name for a change of labels."""
    return uuid.uuid4().hex


def _listed(image: str, record: Mapping[str, Any]) -> Listed:
    info, label = record["image"]["info"], record["labels"].get(Tag.FINAL, {"info": {}})["info"]
    return Listed(image, info["ts"], info["group"], label.get("label"), label.get("by"), label.get("ts"))


def _standing(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the changes of a label that were not taken back, oldest first."""
    standing: list[dict[str, Any]] = []
    for entry in record["history"]:
        if entry["undoes"] is None:
            standing.append(entry)
        else:
            standing.pop()
    return standing


def require_class_name(name: str) -> None:
    """Refuse a class name that a config or a table could not hold.

    Raises:
        Problem: 422.
    """
    if len(name) > LARGEST_NAME or not _NAME.fullmatch(name):
        raise Problem(
            422,
            f"a class is called by up to {LARGEST_NAME} letters, digits, spaces and .,/()+&'-_, with a letter first "
            "and after each /",
            Cause.CLASS_NAME,
            n=LARGEST_NAME,
        )


def encoded(pixels: np.ndarray) -> tuple[str, bytes]:
    """Return suffix and content of the file that holds an image's pixels, and nothing else."""
    file = io.BytesIO()
    if pixels.ndim == 3 and pixels.shape[2] == 3:
        grey = bool((pixels == pixels[..., :1]).all())
        Image.fromarray(np.ascontiguousarray(pixels[..., 0]) if grey else pixels).save(file, "PNG")
        return PICTURE, file.getvalue()
    np.save(file, pixels.reshape(pixels.shape[:3]))
    return VOLUME, file.getvalue()
